"""The survey as a RayJob, and the nights as a CronJob."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from lenspipe import cli
from lenspipe.config import Survey, load_survey
from lenspipe.run.lock import STALE_AFTER_S, WATCH_S
from lenspipe.submit import STOP_WAIT_S
from tests.deploy.chart import (
    CHART,
    FILES,
    VALUES,
    environment,
    of_kind,
    one,
    pod,
    refusal,
    render,
    template,
)
from tests.ray_variables import HOSTILE, as_ray_sets_them
from tests.tools import require_tool

pytestmark = pytest.mark.tool

SURVEY = "values-survey.yaml"
EXISTING = ("--set", "ray.existingCluster=shared,ray.auth.existingSecret=shared-token")


def job(values: str, *options: str) -> dict[str, Any]:
    return dict(one(render(values, *options), "RayJob")["spec"])


def group(name: str) -> dict[str, Any]:
    groups = job(SURVEY)["rayClusterSpec"]["workerGroupSpecs"]
    return dict(next(g for g in groups if g["groupName"] == name))


def parsed(text: str, folder: Path) -> Survey:
    file = folder / "survey.yaml"
    file.write_text(text, "utf-8")
    return load_survey(file)


def given_survey(values: str) -> str:
    return str(yaml.safe_load((CHART / values).read_text("utf-8"))["survey"])


@pytest.mark.parametrize("values", VALUES)
def test_the_survey_file_arrives_word_for_word(values: str) -> None:
    data = one(render(values), "ConfigMap", "-survey")["data"]
    assert data == {"survey.yaml": given_survey(values)}


@pytest.mark.parametrize("values", VALUES)
def test_lenspipe_takes_the_survey_file(values: str, tmp_path: Path) -> None:
    text = one(render(values), "ConfigMap", "-survey")["data"]["survey.yaml"]
    assert parsed(text, tmp_path).ensemble == "ps1-gri"


def test_any_text_of_a_survey_file_arrives(tmp_path: Path) -> None:
    text = '# Σ "quotes" {{ no template }} \\n\nsources: {path: "a: b"}\n\n  \n'
    file = tmp_path / "survey.yaml"
    file.write_text(text, "utf-8")
    done = template("values-minikube.yaml", "--set-file", f"survey={file}")
    manifests = [m for m in yaml.safe_load_all(done.stdout) if m]
    assert one(manifests, "ConfigMap", "-survey")["data"]["survey.yaml"] == text


@pytest.mark.parametrize("values", VALUES)
def test_the_entrypoint_is_a_command_of_lenspipe(values: str) -> None:
    words = shlex.split(job(values)["entrypoint"])
    assert words[:3] == ["lenspipe", "run", "/etc/lenspipe/survey.yaml"]
    run = get_command(cli.app).commands["run"]  # type: ignore[attr-defined]  # a group
    run.make_context("run", words[2:])


@pytest.mark.parametrize("values", VALUES)
def test_no_shell_finds_anything_to_change_in_the_entrypoint(values: str) -> None:
    """KubeRay's submitter and Ray's head both hand it to one."""
    assert re.fullmatch(r"[A-Za-z0-9 ._:/@=+-]+", job(values)["entrypoint"])


def test_the_head_has_the_survey_file() -> None:
    [container] = pod(render(SURVEY), "RayJob head").containers
    mounts = {m["mountPath"]: m["name"] for m in container["volumeMounts"]}
    volumes = {v["name"]: v for v in pod(render(SURVEY), "RayJob head").spec["volumes"]}
    named = volumes[mounts["/etc/lenspipe"]]["configMap"]["name"]
    assert named == one(render(SURVEY), "ConfigMap", "-survey")["metadata"]["name"]


def test_nothing_is_scored_where_the_driver_is() -> None:
    head = job(SURVEY)["rayClusterSpec"]["headGroupSpec"]
    assert head["rayStartParams"]["num-cpus"] == "0"
    annotations = pod(render(SURVEY), "RayJob head").metadata["annotations"]
    assert annotations["cluster-autoscaler.kubernetes.io/safe-to-evict"] == "false"


def test_a_failed_try_is_followed_by_others() -> None:
    assert job(SURVEY)["backoffLimit"] == 5


@pytest.mark.parametrize("values", VALUES)
def test_a_try_waits_until_the_one_before_is_known_to_be_dead(values: str) -> None:
    """Else it would be refused while a lost node's last heartbeat is fresh, and count as failed."""
    words = shlex.split(job(values)["entrypoint"])
    assert float(words[words.index("--wait") + 1]) > STALE_AFTER_S + WATCH_S


def test_no_wait_is_too_short_for_that() -> None:
    shortest = STALE_AFTER_S + WATCH_S
    told = refusal(SURVEY, "--set", f"job.lockWaitSeconds={shortest - 1:.0f}")
    assert "job.lockWaitSeconds: Must be greater than or equal to 165" in told


def test_the_driver_is_given_time_to_end_in_order() -> None:
    for owner in ("RayJob head", "CronJob"):
        assert pod(render(SURVEY), owner).spec["terminationGracePeriodSeconds"] > STOP_WAIT_S


def test_a_job_that_is_stopped_is_given_time_to_end_in_order() -> None:
    """Ray kills it after 3 s otherwise; the head's environment is what its supervisor asks."""
    [head] = pod(render(SURVEY), "RayJob head").containers
    assert environment(head)["RAY_JOB_STOP_WAIT_TIME_S"] == str(STOP_WAIT_S)
    elsewhere = yaml.safe_load(job(SURVEY, *EXISTING)["runtimeEnvYAML"])["env_vars"]
    assert elsewhere["RAY_JOB_STOP_WAIT_TIME_S"] == str(STOP_WAIT_S)


def test_a_run_is_taken_up_again_by_another_attempt() -> None:
    again = one(render(SURVEY, "--set", "job.attempt=2"), "RayJob")
    assert [one(render(SURVEY), "RayJob")["metadata"]["name"], again["metadata"]["name"]] == [
        "lens-1",
        "lens-2",
    ]
    assert again["spec"] == job(SURVEY)


def test_failures_are_tried_again_where_asked() -> None:
    assert "--retry-failed" not in job(SURVEY)["entrypoint"]
    assert job(SURVEY, "--set", "job.retryFailed=true")["entrypoint"].count("--retry-failed") == 1


def test_the_cluster_goes_when_the_job_has_ended() -> None:
    assert job(SURVEY)["shutdownAfterJobFinishes"] is True
    assert job(SURVEY)["ttlSecondsAfterFinished"] == 600


def test_a_cluster_that_stays_has_no_time_to_live() -> None:
    kept = job(SURVEY, "--set", "job.shutdownAfterJobFinishes=false")
    assert kept["shutdownAfterJobFinishes"] is False
    assert "ttlSecondsAfterFinished" not in kept


def test_a_deadline_is_there_where_one_is_asked_for() -> None:
    assert job(SURVEY)["activeDeadlineSeconds"] == 7 * 24 * 3600
    assert "activeDeadlineSeconds" not in job("values-gpu-node.yaml")


def test_all_tries_of_the_largest_survey_end_within_six_weeks() -> None:
    """KubeRay counts the deadline anew for each."""
    tries = 1 + job(SURVEY)["backoffLimit"]
    assert tries * job(SURVEY)["activeDeadlineSeconds"] <= 42 * 24 * 3600


def test_groups_grow_and_shrink() -> None:
    cluster = job(SURVEY)["rayClusterSpec"]
    assert cluster["enableInTreeAutoscaling"] is True
    assert cluster["autoscalerOptions"]["version"] == "v2"
    assert cluster["autoscalerOptions"]["idleTimeoutSeconds"] == 300
    found = [(g["minReplicas"], g["maxReplicas"]) for g in cluster["workerGroupSpecs"]]
    assert found == [(2, 32), (0, 64)]


def test_the_run_is_planned_for_the_largest_cluster() -> None:
    words = shlex.split(job(SURVEY)["entrypoint"])
    assert words[words.index("--max-cpus") + 1] == str(32 * 16)
    assert words[words.index("--max-gpus") + 1] == "64"


def test_without_autoscaling_all_nodes_are_there_from_the_start() -> None:
    cluster = job(SURVEY, "--set", "ray.autoscaling.enabled=false")["rayClusterSpec"]
    assert cluster["enableInTreeAutoscaling"] is False
    assert "autoscalerOptions" not in cluster
    found = [(g["replicas"], g["minReplicas"]) for g in cluster["workerGroupSpecs"]]
    assert found == [(32, 32), (64, 64)]


def test_scorers_are_on_nodes_with_gpus() -> None:
    scorers = group("scorers")
    spec = scorers["template"]["spec"]
    assert spec["nodeSelector"] == {"lenspipe.example.org/pool": "gpu"}
    assert spec["tolerations"] == [
        {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
    ]
    assert spec["runtimeClassName"] == "nvidia"
    [container] = spec["containers"]
    assert container["image"].endswith("-gpu")
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert scorers["rayStartParams"] == {"num-cpus": "8", "num-gpus": "1"}


def test_readers_are_on_nodes_without() -> None:
    readers = group("readers")
    spec = readers["template"]["spec"]
    assert spec["nodeSelector"] == {"lenspipe.example.org/pool": "cpu"}
    assert spec["tolerations"][0]["key"] == "lenspipe.example.org/spot"
    [container] = spec["containers"]
    assert container["image"].endswith("-cpu")
    assert set(container["resources"]["limits"]) == {"memory"}
    assert readers["rayStartParams"] == {"num-cpus": "16", "num-gpus": "0"}


def test_without_gpus_there_is_one_group() -> None:
    groups = job("values-minikube.yaml")["rayClusterSpec"]["workerGroupSpecs"]
    assert [g["groupName"] for g in groups] == ["readers"]


def test_nodes_and_clients_share_a_token() -> None:
    named = {"secretKeyRef": {"name": "lenspipe-ray-token", "key": "auth_token"}}
    for role in ("head", "readers", "scorers", "submitter"):
        [container] = pod(render(SURVEY), f"RayJob {role}").containers
        variables = environment(container)
        assert variables["RAY_AUTH_MODE"] == "token"
        assert variables["RAY_AUTH_TOKEN"] == named
    options = job(SURVEY)["rayClusterSpec"]["authOptions"]
    assert options == {"mode": "token", "secretName": "lenspipe-ray-token"}
    assert not of_kind(render(SURVEY), "Secret")


def test_a_token_is_made_where_none_is_given() -> None:
    secret = one(render("values-minikube.yaml"), "Secret")
    named = job("values-minikube.yaml")["rayClusterSpec"]["authOptions"]["secretName"]
    assert secret["metadata"]["name"] == named
    assert len(secret["data"]["auth_token"]) == 64


def test_an_open_cluster_is_refused() -> None:
    told = refusal(SURVEY, "--set", "ray.auth.mode=disabled")
    assert "ray.auth.allowOpenCluster" in told


def test_an_open_cluster_is_made_where_it_is_asked_for() -> None:
    options = ("--set", "ray.auth.mode=disabled,ray.auth.allowOpenCluster=true")
    assert job(SURVEY, *options)["rayClusterSpec"]["authOptions"] == {"mode": "disabled"}
    [container] = pod(render(SURVEY, *options), "RayJob head").containers
    assert environment(container)["RAY_AUTH_MODE"] == "disabled"
    assert "RAY_AUTH_TOKEN" not in environment(container)


def test_a_cluster_that_is_there_is_used_and_left() -> None:
    found = job(SURVEY, *EXISTING)
    assert found["clusterSelector"] == {"ray.io/cluster": "shared"}
    assert found["shutdownAfterJobFinishes"] is False
    assert "rayClusterSpec" not in found


def test_kuberay_is_asked_for_no_second_cluster_there() -> None:
    assert job(SURVEY, *EXISTING)["backoffLimit"] == 0


def test_the_survey_file_comes_with_the_job_there(tmp_path: Path) -> None:
    """The entrypoint is a line for the head's shell, run here with the variables that Ray sets."""
    (tmp_path / "given.yaml").write_text(f"{HOSTILE}sources: {{path: s3://survey/}}\n", "utf-8")
    done = template(SURVEY, *EXISTING, "--set-file", f"survey={tmp_path}/given.yaml")
    found = one([m for m in yaml.safe_load_all(done.stdout) if m], "RayJob")["spec"]
    variables = as_ray_sets_them(yaml.safe_load(found["runtimeEnvYAML"])["env_vars"])
    said = run_shell(["sh", "-c", found["entrypoint"]], tmp_path, variables)
    assert said["survey"] == (tmp_path / "given.yaml").read_text("utf-8")
    assert said["options"] == shlex.split("--output s3://survey/run --address auto --wait 300")


def test_a_survey_file_too_long_to_come_with_a_job_is_refused(tmp_path: Path) -> None:
    (tmp_path / "long.yaml").write_text(f"{given_survey(SURVEY)}# {'é' * 45_000}\n", "utf-8")
    long = ("--set-file", f"survey={tmp_path}/long.yaml")
    assert "survey: expected at most 90000 bytes where ray." in refusal(SURVEY, *EXISTING, *long)
    assert template(SURVEY, *long).returncode == 0


def run_shell(command: list[str], folder: Path, variables: dict[str, str]) -> dict[str, Any]:
    """What a `lenspipe` in its place is told by a shell: the survey file's text, and options."""
    stand_in = folder / "bin" / "lenspipe"
    stand_in.parent.mkdir()
    stand_in.write_text(
        '#!/bin/sh\n[ $1 = run ] && cat $2 > $SAID/survey && shift 2 && echo "$@" > $SAID/options\n'
    )
    stand_in.chmod(0o755)
    path = f"{stand_in.parent}:{os.environ['PATH']}"
    subprocess.run(
        command, check=True, env={**variables, "PATH": path, "SAID": str(folder)}, text=True
    )
    options = (folder / "options").read_text("utf-8").split()
    return {"survey": (folder / "survey").read_text("utf-8"), "options": options}


# Nights


def night(name: str, folder: Path) -> dict[str, Any]:
    """What the CronJob's container does in a Job of that name."""
    data = one(render(SURVEY), "ConfigMap", "-nightly")["data"]
    for file, content in data.items():
        (folder / file).write_text(content, "utf-8")
    [container] = pod(render(SURVEY), "CronJob").containers
    words = [*container["command"], *container["args"]]
    here = [word.replace("/etc/lenspipe", str(folder)) for word in words]
    return run_shell(here, folder, {"JOB": name})


def test_the_script_of_the_nights_is_the_charts() -> None:
    data = one(render(SURVEY), "ConfigMap", "-nightly")["data"]
    assert data["nightly.sh"] == (FILES / "nightly.sh").read_text("utf-8")


# 2026-11-30 15:30 UTC in minutes since 1970, which a CronJob puts at the end of its Jobs' names.
@pytest.mark.parametrize("name", ["lens-nightly-29934210", "lens-nightly-20261130"])
def test_a_night_has_a_survey_file_and_an_output_of_its_own(name: str, tmp_path: Path) -> None:
    said = night(name, tmp_path)
    assert parsed(said["survey"], tmp_path).name == "night-2026-11-30"
    expected = shlex.split("--output s3://survey/nights/2026-11-30 --wait 300")
    assert said["options"] == expected


def test_a_night_without_a_date_is_refused(tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError) as ended:
        night("lens-nightly-mine", tmp_path)
    assert ended.value.returncode == 2


def test_the_nights_follow_one_another() -> None:
    cron = one(render(SURVEY), "CronJob")["spec"]
    assert cron["schedule"] == "30 15 * * *"
    assert cron["timeZone"] == "Etc/UTC"
    assert cron["concurrencyPolicy"] == "Forbid"


def test_a_night_is_tried_again_but_for_mistakes() -> None:
    spec = one(render(SURVEY), "CronJob")["spec"]["jobTemplate"]["spec"]
    assert spec["backoffLimit"] == 3
    mistakes, drained = spec["podFailurePolicy"]["rules"]
    assert mistakes["action"] == "FailJob"
    assert mistakes["onExitCodes"]["values"] == [2, 3]
    assert drained["action"] == "Ignore"


def test_a_night_knows_which_it_is() -> None:
    [container] = pod(render(SURVEY), "CronJob").containers
    field = "metadata.labels['batch.kubernetes.io/job-name']"
    assert environment(container)["JOB"] == {"fieldRef": {"fieldPath": field}}


def test_a_night_has_a_gpu_where_one_is_asked_for() -> None:
    [container] = pod(render(SURVEY), "CronJob").containers
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert container["image"].endswith("-gpu")
    [bare] = pod(render(SURVEY, "--set", "nightly.gpus=0"), "CronJob").containers
    assert set(bare["resources"]["limits"]) == {"memory"}
    assert bare["image"].endswith("-cpu")


PLACING = ("nodeSelector", "tolerations", "affinity")
GPU_AFFINITY = "ray.gpu.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution"


def test_a_night_with_a_gpu_goes_where_gpus_are() -> None:
    terms = f"{GPU_AFFINITY}.nodeSelectorTerms[0].matchFields[0].key=metadata.name"
    manifests = render(SURVEY, "--set", terms)
    night, scorer = (pod(manifests, owner).spec for owner in ("CronJob", "RayJob scorers"))
    assert [night[key] for key in PLACING] == [scorer[key] for key in PLACING]
    assert night["nodeSelector"] == {"lenspipe.example.org/pool": "gpu"}


def test_a_night_goes_where_it_is_told_to() -> None:
    own = "nightly.nodeSelector.pool=nights,nightly.tolerations[0].operator=Exists"
    placed = pod(render(SURVEY, "--set", own), "CronJob").spec
    assert placed["nodeSelector"] == {"pool": "nights"}
    assert placed["tolerations"] == [{"operator": "Exists"}]


def test_a_night_without_gpus_keeps_off_their_nodes() -> None:
    placed = pod(render(SURVEY, "--set", "nightly.gpus=0"), "CronJob").spec
    assert not set(PLACING) & set(placed)


def test_nights_on_a_volume_lie_beside_the_run() -> None:
    options = ("--set", "nightly.outputUrl=,output.url=,output.folder=sky/run")
    [container] = pod(render(SURVEY, *options), "CronJob").containers
    assert container["args"][1] == "/var/lib/lenspipe/sky/@NIGHT@"


def test_scripts_are_sound() -> None:
    subprocess.run([require_tool("sh"), "-n", FILES / "nightly.sh"], check=True)
    assert json.loads((FILES / "dashboard.json").read_text("utf-8"))["title"] == "lenspipe"
