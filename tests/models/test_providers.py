"""What the GPU providers are told, and what the driver is asked; no GPU is needed to see that."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lenspipe.models import cuda, providers
from lenspipe.models.ensemble import load_ensemble
from lenspipe.models.providers import CONTEXT_BYTES, ProviderOptions, memory_share
from lenspipe.models.session import Member
from tests import toy_models

GIB = 1024**3


def test_tensorrt_falls_to_cuda_and_the_cpu_operator_by_operator() -> None:
    options = ProviderOptions(engine_cache="/cache", memory_bytes=4 * GIB)
    (trt, of_trt), (on_cuda, of_cuda), cpu = providers._provider_list("tensorrt", 1, options)
    assert (trt, on_cuda, cpu) == tuple(
        providers.RUNTIME_NAMES[k] for k in ("tensorrt", "cuda", "cpu")
    )
    assert of_trt["trt_engine_cache_path"] == "/cache"
    assert of_trt["trt_max_workspace_size"] == str(2 * GIB)
    assert of_cuda["gpu_mem_limit"] == str(4 * GIB)
    assert of_cuda["arena_extend_strategy"] == "kSameAsRequested"
    assert {of_trt["device_id"], of_cuda["device_id"]} == {"1"}


def test_no_limit_where_none_is_asked_for() -> None:
    (_, of_cuda), _ = providers._provider_list("cuda", 0, ProviderOptions())
    assert of_cuda == {"device_id": "0", "use_tf32": "0"}


def test_actors_on_one_device_stay_within_it(monkeypatch: pytest.MonkeyPatch) -> None:
    device = cuda.Device("some", (9, 0), 16 * GIB, 12040)
    monkeypatch.setattr(cuda, "device", lambda _: device)
    assert memory_share(1.0, 3) is None
    for actors in (2, 3, 4, 8):
        each = memory_share(1 / actors, 3)
        assert each is not None
        assert actors * (3 * each + CONTEXT_BYTES) <= device.memory_bytes
        assert each > 256 * 1024**2
    assert memory_share(1e-3, 3) == providers.LEAST_BYTES


def test_a_device_that_tells_nothing_has_no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "device", lambda _: None)
    assert memory_share(0.5, 3) is None


def test_a_share_reaches_every_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[ProviderOptions] = []
    device = cuda.Device("some", (9, 0), 16 * GIB, 12040)
    monkeypatch.setattr(cuda, "device", lambda _: device)
    load = Member.load

    def on_cpu(path: Path, _provider: str, threads: int, rows: int, _id: int, o: Any) -> Member:
        given.append(o)
        return load(path, "cpu", threads, rows)

    monkeypatch.setattr(Member, "load", on_cpu)
    path = str(toy_models.make_ensemble(tmp_path, members=2))
    load_ensemble(path, provider="cuda", gpu_share=0.25)
    load_ensemble(path, provider="cuda")
    load_ensemble(path, provider="cpu", gpu_share=0.25)
    assert [o.memory_bytes for o in given] == [memory_share(0.25, 2)] * 2 + [None] * 4


class Driver:
    """Answers as libcuda does, and notes what was locked. fails: the call that refuses."""

    def __init__(self, fails: str = "") -> None:
        self.locked: list[int] = []
        self.fails = fails

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("cu"):
            raise AttributeError(name)
        return lambda *given: 1 if name == self.fails else self._call(name, given)

    def _call(self, name: str, given: tuple[Any, ...]) -> int:
        if name == "cuMemHostRegister_v2":
            self.locked.append(given[0].value)
        elif name == "cuMemHostUnregister":
            self.locked.remove(given[0].value)
        elif name == "cuDeviceGetName":
            given[0].value = b"NVIDIA H200"
        elif name == "cuDeviceTotalMem_v2":
            given[0]._obj.value = 139 * GIB
        elif name == "cuDeviceGetAttribute":
            given[0]._obj.value = {75: 9, 76: 0}[given[1]]
        elif name == "cuDriverGetVersion":
            given[0]._obj.value = 12040
        elif name == "cuDeviceGetCount":
            given[0]._obj.value = 2
        return 0


def install(monkeypatch: pytest.MonkeyPatch, driver: Driver | None) -> None:
    monkeypatch.setattr(cuda, "driver", lambda: driver)
    monkeypatch.setattr(cuda, "_CONTEXT", cuda.threading.local())  # type: ignore[attr-defined]


def test_memory_is_locked_as_long_as_the_array_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver()
    install(monkeypatch, driver)
    array = np.zeros((4, 3), np.float16)
    assert cuda.page_lock(array, 0)
    assert driver.locked == [array.ctypes.data]
    view = array[1:]
    del array
    assert len(driver.locked) == 1
    del view
    assert driver.locked == []


@pytest.mark.parametrize(
    "call", ["cuMemHostRegister_v2", "cuDevicePrimaryCtxRetain", "cuDeviceGet"]
)
def test_a_driver_that_refuses_leaves_ordinary_memory(
    monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    driver = Driver(fails=call)
    install(monkeypatch, driver)
    assert not cuda.page_lock(np.zeros(4, np.float32), 0)
    assert driver.locked == []


def test_without_a_driver_there_is_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, None)
    assert cuda.devices() == 0
    assert cuda.device(0) is None
    assert not cuda.page_lock(np.zeros(4, np.float32), 0)


def test_what_a_device_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, Driver())
    assert cuda.devices() == 2
    assert cuda.device(1) == cuda.Device("NVIDIA H200", (9, 0), 139 * GIB, 12040)
    install(monkeypatch, Driver(fails="cuDeviceTotalMem_v2"))
    assert cuda.device(1) is None


def test_a_library_that_does_not_start_is_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: Driver(fails="cuInit"))
    cuda.driver.cache_clear()
    try:
        assert cuda.driver() is None
    finally:
        cuda.driver.cache_clear()
