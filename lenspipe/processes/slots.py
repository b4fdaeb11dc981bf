"""How many workers of what size: a plan of CPU and GPU slots in which nothing waits for ever."""

from __future__ import annotations

from dataclasses import dataclass

from lenspipe.config import Runtime
from lenspipe.contracts import ProviderName
from lenspipe.errors import InputError, NoDeviceError
from lenspipe.models.providers import on_gpu


@dataclass(frozen=True)
class Slots:
    """scorers: actors, each with `cpus` and `gpus` of the cluster. readers: reader tasks of one CPU
    that the plan leaves room for; 0 where scorers read for themselves. depth: shards that one
    scorer holds at a time, the one it scores included."""

    scorers: int
    cpus: float
    gpus: float
    readers: int
    depth: int
    provider: ProviderName

    @property
    def threads(self) -> int:
        """Threads of one scorer's ONNX sessions."""
        return max(1, int(self.cpus))


@dataclass(frozen=True)
class Machine:
    """CPU and GPU slots in all."""

    cpus: float
    gpus: float

    def grown(self, most: Machine | None, runtime: Runtime) -> Machine:
        """What a cluster that has these slots now is at its largest; never less than now.

        most: CPU slots on nodes without GPUs, and GPUs; nodes with GPUs are taken to have the CPUs
        that scorers on them want.
        """
        if most is None:
            return self
        gpus = max(self.gpus, most.gpus)
        beside = scorers_on(gpus, runtime.gpus_per_scorer) * runtime.cpus_per_scorer
        return Machine(max(self.cpus, most.cpus + beside), gpus)


def plan_slots(machine: Machine, runtime: Runtime) -> Slots:
    """Fit scorers and readers into the cluster's slots.

    The provider `auto` is `cuda` where the cluster has GPUs, else `cpu`. InputError where what the
    survey file asks for cannot all run at once: a reader that waits for a slot which an actor holds
    would wait for ever.
    """
    cpus, gpus = machine.cpus, machine.gpus
    provider = runtime.provider
    if provider == "auto":
        provider = "cuda" if gpus > 0 else "cpu"
    wants_gpu = on_gpu(provider)
    if wants_gpu and gpus <= 0:
        expected = "cpu or openvino, as the cluster has no GPU"
        raise NoDeviceError("runtime.provider", expected, provider)
    per_scorer = runtime.cpus_per_scorer
    fitting = int((cpus - runtime.readers) / per_scorer + 1e-9)
    if wants_gpu:
        fitting = min(fitting, scorers_on(gpus, runtime.gpus_per_scorer))
    scorers = runtime.scorers or fitting
    if scorers < 1 or scorers > fitting:
        gpu_part = f", {gpus:g} GPUs" if wants_gpu else ""
        raise InputError(
            "runtime.scorers",
            f"scorers of {per_scorer:g} CPUs and {runtime.readers} readers that fit into "
            f"{cpus:g} CPUs{gpu_part}",
            f"{max(scorers, 1)} scorers",
        )
    return Slots(
        scorers=scorers,
        cpus=per_scorer,
        gpus=runtime.gpus_per_scorer if wants_gpu else 0.0,
        readers=runtime.readers,
        depth=1 + max(runtime.read_ahead, -(-runtime.readers // scorers)),
        provider=provider,
    )


def scorers_on(gpus: float, share: float) -> int:
    """How many scorers of that share fit on the devices; a share below 1 lies on one of them, so
    that of 0.4 two fit on each. InputError where a share is above 1 and not whole."""
    if share < 1.0:
        return int(gpus + 1e-9) * int(1.0 / share + 1e-9)
    if share != int(share):
        raise InputError("runtime.gpus_per_scorer", "a part of one GPU or whole ones", share)
    return int(gpus / share + 1e-9)
