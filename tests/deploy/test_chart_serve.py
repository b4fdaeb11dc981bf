"""The service of a run on Kubernetes, and what watches it."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from typer.main import get_command

from lenspipe import cli
from tests.deploy.chart import FILES, environment, of_kind, one, pod, render, selects

pytestmark = pytest.mark.tool

SURVEY = "values-survey.yaml"


def serve() -> dict[str, Any]:
    [container] = pod(render(SURVEY), "Deployment").spec["containers"]
    return dict(container)


def test_the_command_is_one_of_lenspipe() -> None:
    words = [*serve()["command"], *serve()["args"]]
    assert words[:3] == ["lenspipe", "serve", "s3://survey/run"]
    command = get_command(cli.app).commands["serve"]  # type: ignore[attr-defined]  # a group
    command.make_context("serve", words[2:])


def test_those_who_ask_show_a_token() -> None:
    assert "--tokens=/etc/lenspipe/tokens.yaml" in serve()["args"]
    volumes = {v["name"]: v for v in pod(render(SURVEY), "Deployment").spec["volumes"]}
    assert volumes["tokens"]["secret"]["secretName"] == "lenspipe-tokens"
    assert volumes["tokens"]["secret"]["items"] == [{"key": "tokens.yaml", "path": "tokens.yaml"}]


def test_grades_go_to_a_database_whose_password_is_in_a_secret() -> None:
    assert "--grades=postgresql://grades.example.org/ps1_south" in serve()["args"]
    variables = environment(serve())
    for name in ("PGUSER", "PGPASSWORD"):
        assert variables[name] == {"secretKeyRef": {"name": "lenspipe-grades", "key": name}}


def test_grades_in_the_runs_folder_have_one_writer() -> None:
    deployment = one(render("values-minikube.yaml"), "Deployment")["spec"]
    assert deployment["replicas"] == 1
    assert deployment["strategy"] == {"type": "Recreate"}
    assert "strategy" not in one(render(SURVEY), "Deployment")["spec"]


def test_it_begins_when_the_run_is_published() -> None:
    [first] = pod(render(SURVEY), "Deployment").spec["initContainers"]
    assert "lenspipe status" in first["args"][0]
    assert first["args"][1] == "s3://survey/run"


def test_its_health_is_asked_for_without_a_token() -> None:
    assert serve()["readinessProbe"]["httpGet"]["path"] == "/healthz"
    assert serve()["startupProbe"]["httpGet"]["path"] == "/healthz"


def test_another_run_may_be_served_alone() -> None:
    options = ("--set", "job.enabled=false,nightly.enabled=false,serve.run=s3://older/run")
    manifests = render(SURVEY, *options)
    assert not of_kind(manifests, "RayJob")
    [container] = pod(manifests, "Deployment").spec["containers"]
    assert container["command"][2] == "s3://older/run"


def test_the_service_leads_to_its_pods() -> None:
    service = one(render(SURVEY), "Service")["spec"]
    found = pod(render(SURVEY), "Deployment")
    assert service["selector"].items() <= found.labels.items()
    [port] = service["ports"]
    assert port["targetPort"] in [p["name"] for p in serve()["ports"]]


def test_the_ingress_leads_to_the_service_and_has_a_certificate() -> None:
    ingress = one(render(SURVEY), "Ingress")["spec"]
    service = one(render(SURVEY), "Service")
    [rule] = ingress["rules"]
    [path] = rule["http"]["paths"]
    assert rule["host"] == "lenses.example.org"
    assert path["backend"]["service"]["name"] == service["metadata"]["name"]
    assert path["backend"]["service"]["port"]["name"] == service["spec"]["ports"][0]["name"]
    assert ingress["tls"] == [{"hosts": ["lenses.example.org"], "secretName": "lenses-tls"}]
    assert ingress["ingressClassName"] == "nginx"


def test_a_proxy_is_believed_where_it_is_named() -> None:
    assert environment(serve())["FORWARDED_ALLOW_IPS"] == "10.0.0.0/8"


def test_a_drain_takes_one_pod_at_a_time() -> None:
    budget = one(render(SURVEY), "PodDisruptionBudget")["spec"]
    assert budget["maxUnavailable"] == 1
    assert selects(budget["selector"], pod(render(SURVEY), "Deployment").labels)
    assert not selects(budget["selector"], pod(render(SURVEY), "RayJob head").labels)


def test_metrics_are_scraped_where_they_are() -> None:
    run, ray = of_kind(render(SURVEY), "PodMonitor")
    for monitor, owners in ((run, ["RayJob head", "CronJob"]), (ray, ["RayJob head"])):
        [endpoint] = monitor["spec"]["podMetricsEndpoints"]
        for owner in owners:
            found = pod(render(SURVEY), owner)
            assert selects(monitor["spec"]["selector"], found.labels), owner
            ports = {p["name"] for c in found.containers for p in c["ports"]}
            assert endpoint["port"] in ports, owner
    assert not selects(run["spec"]["selector"], pod(render(SURVEY), "RayJob readers").labels)
    assert selects(ray["spec"]["selector"], pod(render(SURVEY), "RayJob readers").labels)


def test_prometheus_finds_monitors_and_rules() -> None:
    for kind in ("PodMonitor", "PrometheusRule"):
        for found in of_kind(render(SURVEY), kind):
            assert found["metadata"]["labels"]["release"] == "prometheus"


def test_the_alerts_are_the_file() -> None:
    file = yaml.safe_load((FILES / "rules.yaml").read_text("utf-8"))
    assert one(render(SURVEY), "PrometheusRule")["spec"] == file


def test_the_dashboard_is_the_file() -> None:
    board = one(render(SURVEY), "ConfigMap", "-dashboard")
    assert board["metadata"]["labels"]["grafana_dashboard"] == "1"
    file = (FILES / "dashboard.json").read_text("utf-8")
    assert json.loads(board["data"]["lenspipe.json"]) == json.loads(file)
