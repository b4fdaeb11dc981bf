"""Blocks that are not run as they stand, with the reason and the test that stands in for each."""

from __future__ import annotations

from dataclasses import dataclass

from tests.guides.pages import Block


@dataclass(frozen=True)
class Elsewhere:
    """A block by its page and first words. test: file that runs the same in another way, if any."""

    page: str
    first: str
    reason: str
    test: str | None

    def names(self, block: Block) -> bool:
        """Whether it is this block."""
        return block.page == self.page and block.commands[0].startswith(self.first)


_ENGINE = "there is no container engine"
_RAY = "Ray on several hosts, each with an address of its own"

ELSEWHERE = (
    Elsewhere("README.md", "make demo", "minutes", "tests/end_to_end/test_demo.py"),
    Elsewhere("docs/quick-start.md", "make demo", "minutes", "tests/end_to_end/test_demo.py"),
    Elsewhere("docs/cluster.md", "umask 077", _RAY, "tests/cluster/test_three_nodes.py"),
    Elsewhere(
        "docs/cluster.md",
        "kubectl --namespace sky get secret",
        "a cluster of Kubernetes",
        "tests/deploy/test_release.py",
    ),
    Elsewhere(
        "docs/cluster.md", "export RAY_AUTH_TOKEN_PATH", _RAY, "tests/chaos/test_submission.py"
    ),
    Elsewhere("docs/compose.md", "cd deploy/compose", _ENGINE, "tests/deploy/test_compose.py"),
    Elsewhere("docs/compose.md", "(umask 077", _RAY, "tests/cluster/test_three_nodes.py"),
    Elsewhere("docs/compose.md", "export RAY_AUTH_MODE", _RAY, "tests/cluster/test_three_nodes.py"),
    Elsewhere(
        "docs/evaluation.md",
        "python -m training evaluate training/recipes/ps1-gri.yaml --work runs/models --real",
        "minutes, on real pixels that are not in the repository",
        "tests/training/evaluation/test_real.py",
    ),
    Elsewhere(
        "docs/grading.md",
        "lenspipe grades show RUN --grades",
        "a server of PostgreSQL",
        "tests/serve/grades/test_store.py",
    ),
    Elsewhere("docs/images.md", "docker build", _ENGINE, "tests/images/test_image.py"),
    Elsewhere("docs/images.md", "podman build", _ENGINE, "tests/images/test_image.py"),
    Elsewhere(
        "docs/images.md",
        "apt-get install buildah debootstrap",
        "minutes, as root",
        "tests/images/test_image.py",
    ),
    Elsewhere("docs/images.md", "docker run --rm --init", _ENGINE, "tests/images/test_image.py"),
    Elsewhere(
        "docs/images.md",
        "docker run --rm --entrypoint python",
        _ENGINE,
        "tests/images/test_image.py",
    ),
    Elsewhere(
        "docs/kubernetes.md",
        "kubectl --namespace sky get rayjob",
        "a cluster of Kubernetes",
        "tests/deploy/test_release.py",
    ),
    Elsewhere(
        "docs/kubernetes.md",
        "kubectl --namespace sky create secret",
        "a cluster of Kubernetes",
        None,
    ),
    Elsewhere("docs/kubernetes.md", "minikube start", "a cluster of Kubernetes", None),
    Elsewhere("docs/kubernetes.md", "kubectl create job", "a cluster of Kubernetes", None),
    Elsewhere("docs/models.md", "pip install", "installs", "tests/models/test_openvino.py"),
    Elsewhere("docs/service.md", "pip install", "installs", None),
    Elsewhere("docs/reliability.md", "make test", "minutes to hours", None),
    Elsewhere("docs/slurm.md", "sbatch", "a cluster of Slurm", "tests/deploy/test_slurm.py"),
)


def named(block: Block) -> bool:
    """Whether a block is in the table."""
    return any(one.names(block) for one in ELSEWHERE)
