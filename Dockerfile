# Targets: cpu (the default), gpu, training. docs/images.md says how they are built, run and checked.

FROM debian:bookworm-slim AS python
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt /var/log/apt /var/log/dpkg.log \
    && useradd --uid 1000 --user-group --no-create-home --home-dir /tmp --shell /bin/bash lenspipe \
    && install --directory --owner lenspipe --group lenspipe /var/lib/lenspipe \
    # Login shells forget the PATH of the image, and KubeRay may start Ray from one.
    && echo 'PATH=/opt/lenspipe/bin:$PATH' > /etc/profile.d/lenspipe.sh

FROM python AS install
# Certificates that the build mounts are read-only: the package that brings others leaves them alone.
RUN if [ -e /etc/ssl/certs/ca-certificates.crt ]; then \
        dpkg-divert --local --rename /usr/sbin/update-ca-certificates \
        && ln -s /bin/true /usr/sbin/update-ca-certificates; \
    fi \
    && apt-get update \
    && apt-get install --yes --no-install-recommends python3-pip python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv --without-pip /opt/lenspipe
WORKDIR /build
# A package without its code: what it depends on is a layer that a change of the code leaves alone.
COPY constraints.txt deploy/image/dependencies.sh pyproject.toml ./
RUN mkdir lenspipe && touch LICENSE README.md lenspipe/__init__.py
ENV PIP_CONSTRAINT=/build/constraints.txt \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_PYTHON=/opt/lenspipe/bin/python \
    PIP_ROOT_USER_ACTION=ignore

FROM install AS cpu-dependencies
RUN ./dependencies.sh cpu,postgres,s3,serve

FROM install AS gpu-dependencies
RUN ./dependencies.sh gpu,postgres,s3,serve

FROM install AS training-dependencies
RUN ./dependencies.sh cpu,s3,training

FROM install AS package
COPY LICENSE README.md ./
COPY lenspipe lenspipe
RUN pip install --no-deps --root /package .

FROM python AS base
# The root file system may be read-only: nothing is written but below /tmp and the run directory.
# Certificates are of one file; a host's own are mounted over its folder. No library reports to its
# makers.
ENV HOME=/tmp \
    PATH=/opt/lenspipe/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    ORT_DISABLE_TELEMETRY=1 \
    RAY_USAGE_STATS_ENABLED=0 \
    AWS_CA_BUNDLE=/etc/ssl/certs/ca-certificates.crt \
    REQUESTS_CA_BUNDLE=/etc/ssl/certs/ca-certificates.crt \
    SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title=lenspipe \
    org.opencontainers.image.description="Finds strong gravitational lenses in imaging surveys" \
    org.opencontainers.image.licenses=BSD-3-Clause \
    org.opencontainers.image.version=$VERSION \
    org.opencontainers.image.revision=$REVISION \
    org.opencontainers.image.base.name=debian:bookworm-slim
USER 1000:1000
WORKDIR /tmp
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s CMD ["python", "-m", "lenspipe.processes.health"]
ENTRYPOINT ["lenspipe"]
CMD ["--help"]

FROM base AS training
COPY --from=training-dependencies /opt/lenspipe /opt/lenspipe
COPY --from=training-dependencies /opt/lenspipe/lib/python3.11/site-packages/certifi/cacert.pem /etc/ssl/certs/ca-certificates.crt
COPY --from=package /package /
COPY training /opt/lenspipe/lib/python3.11/site-packages/training
ENTRYPOINT ["python", "-m", "training"]

FROM base AS gpu
COPY --from=gpu-dependencies /opt/lenspipe /opt/lenspipe
COPY --from=gpu-dependencies /opt/lenspipe/lib/python3.11/site-packages/certifi/cacert.pem /etc/ssl/certs/ca-certificates.crt
COPY --from=package /package /

FROM base AS cpu
COPY --from=cpu-dependencies /opt/lenspipe /opt/lenspipe
COPY --from=cpu-dependencies /opt/lenspipe/lib/python3.11/site-packages/certifi/cacert.pem /etc/ssl/certs/ca-certificates.crt
COPY --from=package /package /
