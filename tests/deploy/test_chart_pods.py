"""What pods of the chart may and may not do."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml

from tests.deploy.chart import (
    VALUES,
    Manifest,
    environment,
    of_kind,
    one,
    pod,
    pods,
    refusal,
    render,
    selects,
)

pytestmark = pytest.mark.tool

SURVEY = "values-survey.yaml"
OF_THE_API = "/var/run/secrets/kubernetes.io/serviceaccount"


def containers(values: str) -> list[tuple[str, dict[str, Any]]]:
    found = [(f"{p.owner}: {c['name']}", c) for p in pods(render(values)) for c in p.containers]
    for job in of_kind(render(values), "RayJob"):
        options = job["spec"]["rayClusterSpec"].get("autoscalerOptions")
        if options:
            found.append(("autoscaler", options))
    assert len(found) >= 4
    return found


@pytest.mark.parametrize("values", VALUES)
def test_nobody_is_root(values: str) -> None:
    for found in pods(render(values)):
        security = found.spec["securityContext"]
        assert security["runAsNonRoot"] is True, found.owner
        assert security["runAsUser"] > 0, found.owner


@pytest.mark.parametrize("values", VALUES)
def test_system_calls_are_those_of_the_runtimes_profile(values: str) -> None:
    for found in pods(render(values)):
        profile = found.spec["securityContext"]["seccompProfile"]
        assert profile == {"type": "RuntimeDefault"}, found.owner


@pytest.mark.parametrize("values", VALUES)
def test_root_file_systems_are_read_only(values: str) -> None:
    for name, container in containers(values):
        assert container["securityContext"]["readOnlyRootFilesystem"] is True, name


@pytest.mark.parametrize("values", VALUES)
def test_every_container_has_a_place_to_write(values: str) -> None:
    for name, container in containers(values):
        assert "/tmp" in [m["mountPath"] for m in container["volumeMounts"]], name  # noqa: S108
        assert environment(container)["HOME"] == "/tmp", name  # noqa: S108


@pytest.mark.parametrize("values", VALUES)
def test_capabilities_are_dropped_and_none_is_gained(values: str) -> None:
    for name, container in containers(values):
        security = container["securityContext"]
        assert security["capabilities"] == {"drop": ["ALL"]}, name
        assert security["allowPrivilegeEscalation"] is False, name
        assert "privileged" not in security, name


@pytest.mark.parametrize("values", VALUES)
def test_no_pod_mounts_a_token_of_its_service_account(values: str) -> None:
    account = one(render(values), "ServiceAccount")
    assert account["automountServiceAccountToken"] is False
    for found in pods(render(values)):
        assert found.spec["automountServiceAccountToken"] is False, found.owner
        assert found.spec["serviceAccountName"] == account["metadata"]["name"], found.owner


def test_the_autoscaler_alone_has_a_token() -> None:
    """It changes the RayCluster; what runs the survey beside it in the same pod sees nothing."""
    head = pod(render(SURVEY), "RayJob head")
    with_token = [v["name"] for v in head.spec["volumes"] if "projected" in v]
    options = one(render(SURVEY), "RayJob")["spec"]["rayClusterSpec"]["autoscalerOptions"]
    mounted = {m["name"]: m["mountPath"] for m in options["volumeMounts"]}
    assert [mounted[name] for name in with_token] == [OF_THE_API]
    for found in pods(render(SURVEY)):
        for container in found.containers:
            names = {m["name"] for m in container["volumeMounts"]}
            assert not names & set(with_token), found.owner


@pytest.mark.parametrize("values", ["values-minikube.yaml", "values-gpu-node.yaml"])
def test_without_an_autoscaler_there_is_no_token_at_all(values: str) -> None:
    assert not any("projected" in v for p in pods(render(values)) for v in p.spec["volumes"])


@pytest.mark.parametrize("values", VALUES)
def test_credentials_are_named_and_never_written(values: str) -> None:
    for name, container in containers(values):
        for variable, value in environment(container).items():
            if re.search(r"KEY|SECRET|TOKEN|PASSWORD|PGUSER", variable):
                assert list(value) == ["secretKeyRef"], f"{name}: {variable}"
    for secret in of_kind(render(values), "Secret"):
        assert list(secret["data"]) == ["auth_token"]


def test_credentials_of_the_store_come_from_an_existing_secret() -> None:
    readers = ("head", "readers", "scorers")
    owners = [*(f"RayJob {name}" for name in readers), "CronJob", "Deployment"]
    for owner in owners:
        for container in pod(render(SURVEY), owner).containers:
            assert container["envFrom"] == [{"secretRef": {"name": "object-store"}}], owner
    assert "object-store" not in [m["metadata"]["name"] for m in of_kind(render(SURVEY), "Secret")]


def test_who_submits_sees_no_credentials_of_the_store() -> None:
    [container] = pod(render(SURVEY), "RayJob submitter").containers
    assert "envFrom" not in container


@pytest.mark.parametrize("values", VALUES)
def test_every_container_says_what_it_needs(values: str) -> None:
    for found in pods(render(values)):
        for container in found.containers:
            resources = container["resources"]
            assert set(resources["requests"]) >= {"cpu", "memory"}, found.owner
            assert resources["limits"]["memory"] == resources["requests"]["memory"], found.owner


@pytest.mark.parametrize("values", VALUES)
def test_volumes_that_are_mounted_are_there(values: str) -> None:
    for found in pods(render(values)):
        there = {v["name"] for v in found.spec["volumes"]}
        for container in found.containers:
            assert {m["name"] for m in container["volumeMounts"]} <= there, found.owner


@pytest.mark.parametrize("values", VALUES)
def test_objects_that_are_named_are_there_or_the_users(values: str) -> None:
    manifests = render(values)
    made = {(m["kind"], m["metadata"]["name"]) for m in manifests}
    for found in pods(manifests):
        for volume in found.spec["volumes"]:
            if "configMap" in volume:
                assert ("ConfigMap", volume["configMap"]["name"]) in made
    given = {"sky", "object-store", "lenspipe-ray-token", "lenspipe-grades", "lenspipe-tokens"}
    text = json.dumps([p.spec for p in pods(manifests)])
    named = set(re.findall(r'"(?:claimName|secretName)": "([^"]+)"', text))
    named |= set(
        re.findall(r'"secret(?:KeyRef|Ref)": \{"(?:key": "\w+", ")?name": "([^"]+)"', text)
    )
    assert named <= given | {name for _, name in made}


def test_the_run_is_mounted_where_it_is_written() -> None:
    manifests = render("values-minikube.yaml")
    claim = one(manifests, "PersistentVolumeClaim")
    assert claim["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    for owner in ("RayJob head", "RayJob readers", "Deployment"):
        found = pod(manifests, owner)
        [volume] = [v for v in found.spec["volumes"] if v["name"] == "output"]
        assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
        for container in found.containers:
            mounts = {m["name"]: m["mountPath"] for m in container["volumeMounts"]}
            assert mounts["output"] == "/var/lib/lenspipe"
    entrypoint = one(manifests, "RayJob")["spec"]["entrypoint"]
    assert " --output /var/lib/lenspipe/run " in entrypoint


def test_a_claim_that_is_there_is_taken() -> None:
    manifests = render("values-minikube.yaml", "--set", "output.volume.existingClaim=mine")
    assert not of_kind(manifests, "PersistentVolumeClaim")
    assert "mine" in yaml.safe_dump(pod(manifests, "RayJob readers").spec["volumes"])


SHARED = "ray.existingCluster=shared,ray.auth.existingSecret=token"


def test_on_a_cluster_that_is_there_no_claim_is_made_that_its_nodes_have_not() -> None:
    told = refusal("values-minikube.yaml", "--set", f"{SHARED},serve.enabled=false")
    assert "output.url: expected a URL where ray.existingCluster is set (or output.volume." in told
    mounted = f"{SHARED},output.volume.existingClaim=sky"
    manifests = render("values-minikube.yaml", "--set", mounted)
    assert not of_kind(manifests, "PersistentVolumeClaim")
    assert " --output /var/lib/lenspipe/run " in one(manifests, "RayJob")["spec"]["entrypoint"]
    by_url = f"{SHARED},output.url=s3://survey/run"
    assert not of_kind(render("values-minikube.yaml", "--set", by_url), "PersistentVolumeClaim")


def test_a_run_on_an_object_store_has_no_volume() -> None:
    manifests = render("values-gpu-node.yaml")
    assert not of_kind(manifests, "PersistentVolumeClaim")
    assert " --output s3://survey/run " in one(manifests, "RayJob")["spec"]["entrypoint"]


def test_data_are_mounted_to_be_read() -> None:
    for container in pod(render("values-minikube.yaml"), "RayJob readers").containers:
        [mount] = [m for m in container["volumeMounts"] if m["name"] == "data-0"]
        assert mount == {"name": "data-0", "mountPath": "/data", "readOnly": True}


def policies(values: str) -> list[Manifest]:
    return of_kind(render(values), "NetworkPolicy")


def entries(values: str, labels: dict[str, str]) -> list[dict[str, Any]]:
    """What NetworkPolicies together let in to a pod; asserts that any of them selects it."""
    of_pod = [p["spec"] for p in policies(values) if selects(p["spec"]["podSelector"], labels)]
    assert of_pod, "open to all"
    assert all(p["policyTypes"] == ["Ingress"] for p in of_pod)
    return [rule for p in of_pod for rule in p.get("ingress", [])]


def let_in(rule: dict[str, Any]) -> tuple[list[str], list[Any]]:
    """Who, in words, and on which ports; none: all."""
    who = []
    for peer in rule["from"]:
        namespace = peer.get("namespaceSelector", {}).get("matchLabels", {})
        pods_ = peer.get("podSelector", {}).get("matchLabels", {})
        name = namespace.get("kubernetes.io/metadata.name", "here")
        role = pods_.get("app.kubernetes.io/component") or pods_.get("app.kubernetes.io/name")
        who.append(f"{name}/{role or 'any'}")
    return who, [p["port"] for p in rule.get("ports", [])]


RAY: tuple[list[str], list[Any]] = (["here/ray"], [])
DASHBOARD = (["here/submitter", "kuberay-system/kuberay-operator"], [8265])
METRICS = (["monitoring/any"], [8080, 9100])


@pytest.mark.parametrize(
    ("owner", "expected"),
    [
        ("RayJob head", [RAY, DASHBOARD, METRICS]),
        ("RayJob readers", [RAY, DASHBOARD, METRICS]),
        ("RayJob scorers", [RAY, DASHBOARD, METRICS]),
        ("RayJob submitter", []),
        ("CronJob", [METRICS]),
        ("Deployment", [(["ingress-nginx/any"], ["http"])]),
    ],
)
def test_a_pod_is_reached_by_those_who_need_it(owner: str, expected: list[Any]) -> None:
    found = pod(render(SURVEY), owner)
    assert [let_in(rule) for rule in entries(SURVEY, found.labels)] == expected


@pytest.mark.parametrize("kind", ["NodePort", "LoadBalancer"])
def test_a_service_for_those_outside_lets_them_in(kind: str) -> None:
    option = ("--set", f"serve.service.type={kind}")
    assert one(render(SURVEY, *option), "Service")["spec"]["type"] == kind
    [rule] = one(render(SURVEY, *option), "NetworkPolicy", "-serve")["spec"]["ingress"]
    assert rule == {"ports": [{"protocol": "TCP", "port": "http"}]}


def test_without_monitoring_nobody_reaches_metrics() -> None:
    found = pod(render("values-minikube.yaml"), "RayJob head")
    ports = [let_in(rule)[1] for rule in entries("values-minikube.yaml", found.labels)]
    assert ports == [[], [8265]]
