"""What only a GPU can show. Skips with its reason where ONNX Runtime or the machine has none."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from lenspipe.errors import ProviderError
from lenspipe.models import providers
from lenspipe.models.ensemble import load_ensemble
from lenspipe.models.session import Member
from tests import toy_models

SHAPE = (3, 8, 8)


def _needs(provider: str) -> None:
    if providers.RUNTIME_NAMES[provider] not in onnxruntime.get_available_providers():
        pytest.skip(f"this onnxruntime has no {provider} provider")
    if providers.cuda_devices() == 0:
        pytest.skip("no CUDA device")
    if provider == "tensorrt" and not _has_tensorrt():
        pytest.skip("no TensorRT 10 libraries")


def _has_tensorrt() -> bool:
    try:
        ctypes.CDLL("libnvinfer.so.10")
    except OSError:
        return False
    return True


@pytest.fixture(params=["cuda", "tensorrt"])
def provider(request: pytest.FixtureRequest) -> providers.ProviderName:
    chosen: providers.ProviderName = request.param
    _needs(chosen)
    return chosen


@pytest.mark.parametrize("rows", [1, 8, 13])
def test_gpu_and_cpu_agree(tmp_path: Path, provider: providers.ProviderName, rows: int) -> None:
    """Float32 on both (TF32 off), sums in another order: 1e-4 for logits of order one."""
    toy_models.make_member(tmp_path / "toy.onnx", bias=0.5)
    images = np.random.default_rng(0).normal(size=(rows, *SHAPE)).astype(np.float32)
    if rows > 2:
        images[2, 0, 0, 0] = np.nan
    gpu = Member.load(tmp_path / "toy.onnx", provider, batch_size=8)
    cpu = Member.load(tmp_path / "toy.onnx", "cpu", batch_size=8)
    assert gpu.provider == provider
    wanted = cpu.predict({"image": images})
    for _ in range(2):  # the second call reuses the buffers on the device
        found = gpu.predict({"image": images})
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


def test_auto_takes_the_gpu(tmp_path: Path) -> None:
    _needs("cuda")
    toy_models.make_member(tmp_path / "toy.onnx")
    assert Member.load(tmp_path / "toy.onnx", "auto").provider == "cuda"


def test_a_nan_stamp_stays_alone_in_an_ensemble(tmp_path: Path) -> None:
    _needs("cuda")
    ensemble = load_ensemble(str(toy_models.make_ensemble(tmp_path)), provider="cuda", batch_size=4)
    images = np.random.default_rng(0).normal(size=(9, *SHAPE)).astype(np.float32)
    images[4] = np.nan
    scores = ensemble.score({"image": images})
    assert np.flatnonzero(np.isnan(scores.score)).tolist() == [4]


def test_tensorrt_without_its_libraries_is_refused(tmp_path: Path) -> None:
    """ONNX Runtime lists the provider all the same; nothing may run on another in its stead."""
    _needs("cuda")
    if _has_tensorrt():
        pytest.skip("TensorRT is here")
    toy_models.make_member(tmp_path / "toy.onnx")
    with pytest.raises(ProviderError, match="provider tensorrt: "):
        Member.load(tmp_path / "toy.onnx", "tensorrt")
