"""Slurm's real daemons on the hosts of a lab: a controller on the first, a node on each."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.hosts import Host
from tests.tools import require_tool

_CONFIGURATION = """
ClusterName=sky
SlurmctldHost={controller}
SlurmUser=root
AuthType=auth/none
CredType=cred/none
AuthInfo=cred_expire=5
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/linear
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=2,batch_sched_delay=1
ReturnToService=2
KillWait=30
MpiDefault=none
{nodes}
PartitionName=all Nodes=ALL Default=YES MaxTime=60 State=UP
"""


@dataclass(frozen=True)
class Slurm:
    """A cluster of Slurm. environment: of whoever submits."""

    controller: Host
    environment: Mapping[str, str]

    def say(self, *words: str | Path) -> str:
        """What one of Slurm's commands prints."""
        return self.controller.run(*words, environment=dict(self.environment)).strip()

    def state(self, job: str) -> str:
        """As PENDING, RUNNING, COMPLETED, FAILED."""
        told = self.say("scontrol", "--oneliner", "show", "job", job)
        return dict(word.partition("=")[::2] for word in told.split())["JobState"]

    def wait_for(self, job: str, *states: str, seconds: float = 240.0) -> str:
        """The first of those states that the job comes to."""
        deadline = time.monotonic() + seconds
        while (state := self.state(job)) not in states:
            assert time.monotonic() < deadline, f"job {job} is {state}, not one of {states}"
            time.sleep(0.5)
        return state


@contextmanager
def slurm(hosts: Sequence[Host], folder: Path, environment: Mapping[str, str]) -> Iterator[Slurm]:
    """Slurm on those hosts, ended with them. folder: for its files, on a short path."""
    for tool in ("slurmctld", "slurmd", "sbatch"):
        require_tool(tool)
    (folder / "state").mkdir()
    file = folder / "slurm.conf"
    nodes = [f"NodeName={h.name} NodeAddr={h.address} CPUs=1 State=UNKNOWN" for h in hosts]
    values = {"controller": hosts[0].name, "folder": folder, "nodes": "\n".join(nodes)}
    file.write_text(_CONFIGURATION.format(**values), encoding="utf-8")
    cluster = Slurm(hosts[0], {**environment, "SLURM_CONF": str(file)})
    hosts[0].run("slurmctld", "-f", file, environment=dict(environment))
    for host in hosts:
        (folder / f"spool.{host.name}").mkdir()
        host.run("slurmd", "-f", file, "-N", host.name, environment=dict(environment))
    deadline = time.monotonic() + 60.0
    while (told := cluster.say("sinfo", "--noheader", "--format=%T")) != "idle":
        assert time.monotonic() < deadline, told
        time.sleep(0.5)
    yield cluster
