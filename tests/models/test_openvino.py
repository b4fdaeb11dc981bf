"""OpenVINO's networks against the CPU's own. Skips with its reason where ONNX Runtime has none:
`make test-openvino` runs it with the build that has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from lenspipe.bench import job
from lenspipe.contracts import ProviderName
from lenspipe.models import providers
from lenspipe.models.ensemble import Ensemble, load_ensemble
from lenspipe.models.providers import ProviderOptions
from lenspipe.models.session import Member
from tests import toy_models
from training.half import example_stamps

SHAPE = (3, 8, 8)
HAS_BFLOAT16 = bool({"amx_bf16", "avx512_bf16"} & set(Path("/proc/cpuinfo").read_text().split()))
needed = pytest.mark.skipif(
    providers.RUNTIME_NAMES["openvino"] not in onnxruntime.get_available_providers(),
    reason="this onnxruntime has no OpenVINO provider",
)


@pytest.mark.parametrize(("name", "hint"), [("openvino", "f32"), ("openvino_bf16", "bf16")])
def test_what_openvino_is_told(name: str, hint: str) -> None:
    (first, told), cpu = providers._provider_list(name, 0, ProviderOptions(), threads=3)
    assert (first, cpu) == ("OpenVINOExecutionProvider", "CPUExecutionProvider")
    device = json.loads(told["load_config"])["CPU"]
    assert (device["INFERENCE_PRECISION_HINT"], device["INFERENCE_NUM_THREADS"]) == (hint, 3)
    assert device["ENABLE_CPU_PINNING"] is False  # two scorers would meet on the same cores


def test_it_is_no_device_with_a_memory_of_its_own() -> None:
    assert [name for name in providers.RUNTIME_NAMES if providers.on_gpu(name)] == [
        "cuda",
        "tensorrt",
    ]
    assert providers.default_batch_size("openvino") == providers.default_batch_size("cpu")


@needed
@pytest.mark.parametrize("rows", [1, 8, 13])
def test_float32_agrees_with_the_cpu(tmp_path: Path, rows: int) -> None:
    """Float32 on both, sums in another order: 1e-4 for logits of order one."""
    toy_models.make_member(tmp_path / "toy.onnx", bias=0.5)
    images = np.random.default_rng(0).normal(size=(rows, *SHAPE)).astype(np.float32)
    if rows > 2:
        images[2, 0, 0, 0] = np.nan
    ours = Member.load(tmp_path / "toy.onnx", "openvino", batch_size=8)
    cpu = Member.load(tmp_path / "toy.onnx", "cpu", batch_size=8)
    assert (ours.provider, ours.batch_size) == ("openvino", 8)
    assert ours.session.get_providers()[0] == "OpenVINOExecutionProvider"
    wanted = cpu.predict({"image": images})
    np.testing.assert_allclose(ours.predict({"image": images}), wanted, atol=1e-4, rtol=1e-4)
    assert np.isnan(wanted).sum() == (rows > 2)


def _scores(provider: ProviderName) -> tuple[Ensemble, Any]:
    ensemble = load_ensemble("ps1-gri", provider=provider, batch_size=16)
    return ensemble, ensemble.score(example_stamps(ensemble.members[0].card, 48))


@needed
def test_the_shipped_ensemble_agrees_with_the_cpu() -> None:
    """Float32 within 1e-4 of logits up to about ten. bfloat16 keeps 8 bits: its scores rank as the
    CPU's do (rank correlation above 0.99) and lie within 0.15 (0.044 was seen)."""
    _, wanted = _scores("cpu")
    ensemble, same = _scores("openvino")
    assert ensemble.provider == "openvino"
    np.testing.assert_allclose(same.members, wanted.members, atol=1e-4, rtol=1e-4)
    _, rounded = _scores("openvino_bf16")
    assert np.abs(rounded.score - wanted.score).max() < 0.15
    ranks = [np.argsort(np.argsort(scores)) for scores in (rounded.score, wanted.score)]
    assert np.corrcoef(ranks[0], ranks[1])[0, 1] > 0.99
    if HAS_BFLOAT16:  # elsewhere OpenVINO computes in float32
        assert (rounded.members != same.members).any()


@needed
@pytest.mark.parametrize("provider", ["cpu", "openvino"])
@pytest.mark.parametrize("value", [1e31, 1e38, -3e38, np.inf])
def test_a_pixel_that_overflows_gives_no_score(provider: ProviderName, value: float) -> None:
    """OpenVINO's ReLU makes 0 of NaN: what cannot be a flux is refused before."""
    ensemble = load_ensemble("ps1-gri", provider=provider, batch_size=8)
    stamps = example_stamps(ensemble.members[0].card, 8)
    stamps["image"][3, 1, 20, 20] = value
    assert np.flatnonzero(np.isnan(ensemble.score(stamps).score)).tolist() == [3]


@needed
@pytest.mark.timeout(300)
@pytest.mark.usefixtures("ray_cluster")
def test_a_stage_of_a_run_scores_with_it() -> None:
    """In Ray's actors, with a last batch that is not full."""
    found = job.measure("ps1-gri", cutouts=200, rounds=1, others=(), provider="openvino_bf16")
    assert found["score_cutouts_per_s"] > 0
