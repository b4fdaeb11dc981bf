"""What only a GPU can show. Skips with its reason where ONNX Runtime or the machine has none."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from lenspipe.contracts import ProviderName
from lenspipe.errors import ProviderError
from lenspipe.models import providers
from lenspipe.models.card import ImageInput, read_card, write_card
from lenspipe.models.ensemble import load_ensemble
from lenspipe.models.feed import DeviceFeed
from lenspipe.models.locate import find
from lenspipe.models.session import Member
from tests import toy_models
from training.half import example_stamps, make_half, with_input_type

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
def provider(request: pytest.FixtureRequest) -> ProviderName:
    chosen: ProviderName = request.param
    _needs(chosen)
    return chosen


@pytest.mark.parametrize("rows", [1, 8, 13])
def test_gpu_and_cpu_agree(tmp_path: Path, provider: ProviderName, rows: int) -> None:
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


def test_uploads_come_from_page_locked_memory(tmp_path: Path, provider: ProviderName) -> None:
    toy_models.make_member(tmp_path / "toy.onnx")
    member = Member.load(tmp_path / "toy.onnx", provider, batch_size=8)
    assert isinstance(member._feed, DeviceFeed)
    assert member._feed.page_locked


@pytest.mark.parametrize(
    ("dtype", "quantum", "tolerance"),
    [("float16", None, 2e-3), ("int16", 1e-3, 2e-3), ("uint16", 1e-3, 2e-3)],
)
def test_small_types_are_cast_on_the_device(
    tmp_path: Path,
    provider: ProviderName,
    dtype: str,
    quantum: float | None,
    tolerance: float,
) -> None:
    """As on the CPU (tests/models/test_encode.py): the rounding of the pixels is the difference."""
    toy_models.make_member(tmp_path / "toy.onnx", bias=0.5)
    card = read_card(tmp_path / "toy.onnx")
    zero_level = -20.0 if dtype == "uint16" else 0.0
    changes = {"dtype": dtype, "quantum": quantum, "zero_level": zero_level}
    image = ImageInput.model_validate({**card.images[0].model_dump(), **changes})
    small, card = with_input_type(onnx.load(str(tmp_path / "toy.onnx")), card, {"image": image})
    write_card(small, card, tmp_path / "small.onnx")
    images = np.random.default_rng(0).normal(size=(21, *SHAPE)).astype(np.float32)
    found = Member.load(tmp_path / "small.onnx", provider, batch_size=8).predict({"image": images})
    wanted = toy_models.expected_logits(images, toy_models.make_weights(SHAPE), 0.5)
    np.testing.assert_allclose(found, wanted, atol=tolerance)


def test_half_precision_agrees_with_the_cpu(tmp_path: Path, provider: ProviderName) -> None:
    """A shipped member in float16 on both; its sums run in another order and precision."""
    source, out = find("ps1-resnet"), tmp_path / "half.onnx"
    stamps = example_stamps(read_card(source), 32)
    make_half(source, out, stamps)
    found = Member.load(out, provider, batch_size=16).predict(stamps)
    np.testing.assert_allclose(found, Member.load(source, "cpu").predict(stamps), atol=0.1)


def test_a_limit_on_memory_makes_batches_smaller(tmp_path: Path) -> None:
    """ONNX Runtime's own words, from its own allocator: the batch asks for more than the limit."""
    _needs("cuda")
    source = find("ps1-resnet")
    limit = providers.ProviderOptions(memory_bytes=64 * 1024**2)
    member = Member.load(source, "cuda", batch_size=8192, options=limit)
    assert member.halvings > 0
    stamps = example_stamps(read_card(source), 300)
    wanted = Member.load(source, "cpu", batch_size=64).predict(stamps)
    np.testing.assert_allclose(member.predict(stamps), wanted, rtol=1e-3, atol=1e-3)


def test_engines_are_used_again(tmp_path: Path) -> None:
    _needs("tensorrt")
    toy_models.make_member(tmp_path / "toy.onnx")
    options = providers.ProviderOptions(engine_cache=str(tmp_path / "engines"))
    images = {"image": np.random.default_rng(0).normal(size=(9, *SHAPE)).astype(np.float32)}
    first = Member.load(tmp_path / "toy.onnx", "tensorrt", batch_size=8, options=options)
    second = Member.load(tmp_path / "toy.onnx", "tensorrt", batch_size=8, options=options)
    assert first.engines is not None
    assert second.engines is not None
    assert (first.engines.reused, second.engines.reused) == (False, True)
    np.testing.assert_array_equal(first.predict(images), second.predict(images))
