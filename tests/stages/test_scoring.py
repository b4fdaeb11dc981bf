"""Stage `score` on one shard without Ray: each row is a score, or a failure with its reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
import pytest
import yaml

from lenspipe.contracts import CutoutBatch, Failure, Reason
from lenspipe.cutouts.base import ReaderOptions
from lenspipe.errors import InputError
from lenspipe.metrics import RunMetrics
from lenspipe.models import session as session_module
from lenspipe.models.card import read_card, write_card
from lenspipe.models.ensemble import describe_ensemble
from lenspipe.models.feed import make_feed
from lenspipe.stages.scoring import (
    PlanRows,
    Scorer,
    ScoreSettings,
    ShardPixels,
    open_ensemble,
    score_rows,
)
from lenspipe.telling.events import Events
from lenspipe.telling.progress import SilentProgress
from tests import toy_models

SHAPE = (3, 8, 8)


def settings(path: Path, run: Path, **changes: Any) -> ScoreSettings:
    described = describe_ensemble(str(path))
    given: dict[str, Any] = {
        "run_url": str(run),
        "cutouts": ReaderOptions(reader="zarr"),
        "ensemble": str(path),
        "base": ".",
        "provider": "cpu",
        "batch_size": 4,
        "inputs": described.inputs,
        "model_hash": described.model_hash,
    }
    return ScoreSettings(**{**given, **changes})


def shard(images: np.ndarray, unread: int = 0, repeated: int = 0) -> ShardPixels:
    """Rows of images, then rows that no reader could read, then rows with a repeated id."""
    n = len(images) + unread
    total = n + repeated
    sources = pa.table(
        {
            "object_id": np.arange(100, 100 + total),
            "ra": np.linspace(0.0, 1.0, total),
            "dec": np.zeros(total),
            "healpix_29": np.arange(total),
        }
    )
    failures = [Failure(row, Reason.NOT_FOUND, "no tile") for row in range(len(images), n)]
    batch = CutoutBatch(
        n,
        np.arange(len(images)),
        {"image": images},
        np.zeros(len(images), np.uint32),
        failures,
    )
    return ShardPixels(sources, np.arange(total) >= n, batch, 0.0)


def pixels(rows: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(rows, *SHAPE)).astype(np.float32)


def test_every_row_is_a_score_or_a_failure(tmp_path: Path) -> None:
    """Rows at fault alone are in failures; the others score as if those were not there."""
    ensemble = open_ensemble(settings(toy_models.make_ensemble(tmp_path, poison=True), tmp_path))
    images = pixels(11)
    undisturbed, none = score_rows(ensemble, shard(images))
    assert none.num_rows == 0
    images[4, 0, 0, 0] = 2 * toy_models.POISON
    images[9, 1, 0, 0] = np.nan
    scores, failures = score_rows(ensemble, shard(images, unread=2, repeated=1))
    reasons = dict(
        zip(failures["object_id"].to_pylist(), failures["reason"].to_pylist(), strict=True)
    )
    assert reasons == {
        104: "member_error",
        109: "non_finite_score",
        111: "not_found",
        112: "not_found",
        113: "duplicate_id",
    }
    kept = np.setdiff1d(np.arange(11), [4, 9])
    assert scores["object_id"].to_pylist() == (100 + kept).tolist()
    wanted = undisturbed["score"].to_numpy()[kept]
    np.testing.assert_allclose(scores["score"].to_numpy(), wanted, rtol=1e-5, atol=1e-5)
    assert "out of data bounds" in failures["detail"].to_pylist()[0]


def test_a_member_that_gives_nan_costs_the_rows_that_it_saw_so(tmp_path: Path) -> None:
    """log(negative) is NaN: one member's logit for one row, and no score for that row alone."""
    path = toy_models.make_ensemble(tmp_path, members=2)
    file = tmp_path / "toy-b.onnx"
    model = onnx.load(str(file))
    node = model.graph.node[-1]
    node.output[:] = ["linear"]
    model.graph.node.append(onnx.helper.make_node("Log", ["linear"], ["logit"]))
    write_card(model, read_card(file), file)
    ensemble = open_ensemble(settings(path, tmp_path))
    images = pixels(12)
    linear = toy_models.expected_logits(images, toy_models.make_weights(SHAPE, 1))
    scores, failures = score_rows(ensemble, shard(images))
    assert 0 < (linear < 0).sum() < 12
    assert failures["object_id"].to_pylist() == (100 + np.flatnonzero(linear < 0)).tolist()
    assert set(failures["reason"].to_pylist()) == {"non_finite_score"}
    assert scores["object_id"].to_pylist() == (100 + np.flatnonzero(linear > 0)).tolist()


def test_models_that_changed_since_the_run_began_are_refused(tmp_path: Path) -> None:
    path = toy_models.make_ensemble(tmp_path)
    planned = settings(path, tmp_path)
    toy_models.make_member(tmp_path / "toy-b.onnx", seed=9)
    with pytest.raises(InputError, match=f"began with \\({planned.model_hash}\\), found others"):
        Scorer(planned)


def test_models_that_vanished_since_are_named(tmp_path: Path) -> None:
    planned = settings(toy_models.make_ensemble(tmp_path), tmp_path)
    (tmp_path / "toy-b.onnx").unlink()
    with pytest.raises(InputError, match=r"nothing at .*toy-b\.onnx"):
        Scorer(planned)


def test_scores_are_counted_in_the_bins_that_the_ensemble_states(tmp_path: Path) -> None:
    path = toy_models.make_ensemble(tmp_path, members=2)
    (tmp_path / "run").mkdir()
    plain = Scorer(settings(path, tmp_path / "run"))(PlanRows(0, 9), shard(pixels(7), unread=2))
    assert plain.scores == {}
    wanted, _ = score_rows(open_ensemble(settings(path, tmp_path)), shard(pixels(7)))
    score = wanted["score"].to_numpy()
    edge = float(np.sort(score)[4])
    stated = {"population": "toy", "edges": [edge], "counts": [1, 1]}
    content = yaml.safe_load(path.read_text("utf-8"))
    path.write_text(yaml.safe_dump({**content, "score_distribution": stated}), "utf-8")
    given = settings(path, tmp_path / "run", model_hash=settings(path, tmp_path).model_hash)
    record = Scorer(given)(PlanRows(0, 9), shard(pixels(7), unread=2))
    assert record.scores == {repr(edge): 5, "+Inf": 2}


def test_a_device_short_of_memory_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def short(session: Any, output: str, specs: Any, provider: str, device: int) -> Any:
        if specs["image"][0][0] > 3:
            raise RuntimeError("Failed to allocate memory for requested buffer of size 4096")
        return make_feed(session, output, specs, provider, device)

    path = toy_models.make_ensemble(tmp_path, members=2)
    wanted, _ = score_rows(open_ensemble(settings(path, tmp_path)), shard(pixels(7)))
    monkeypatch.setattr(session_module, "make_feed", short)
    (tmp_path / "run").mkdir()
    scorer = Scorer(settings(path, tmp_path / "run"))
    first = scorer(PlanRows(0, 7), shard(pixels(7)))
    second = scorer(PlanRows(7, 14), shard(pixels(7)))
    assert (first.halvings, second.halvings) == (2, 0)
    assert (first.rows_out, first.balanced) == (7, True)
    events = Events(RunMetrics("run"), progress := _Told())
    events.stage_started("score", 14, 2)
    events.committed(first)
    events.committed(second)
    assert progress.messages == ["a scorer's device ran out of memory: batches halved 2 times"]
    assert b'lenspipe_batch_halvings_total{stage="score"} 2.0' in events.metrics.text()
    found, _ = score_rows(scorer._ensemble, shard(pixels(7)))
    np.testing.assert_allclose(
        found["score"].to_numpy(), wanted["score"].to_numpy(), rtol=1e-5, atol=1e-5
    )


class _Told(SilentProgress):
    def __init__(self) -> None:
        self.messages: list[str] = []

    def message(self, text: str) -> None:
        self.messages.append(text)


def test_probabilities_hold_at_the_surveys_prevalence(tmp_path: Path) -> None:
    """The column says at which; scores and so ranks are what they were."""
    path = toy_models.make_ensemble(tmp_path)
    tables = [
        score_rows(open_ensemble(settings(path, tmp_path, **changes)), shard(pixels(6)))[0]
        for changes in ({}, {"prevalence": 1e-4})
    ]
    own, moved = (table["probability"].to_numpy() for table in tables)
    odds = own / (1 - own) * (1e-4 / (1 - 1e-4))  # calibrated at 0.5
    np.testing.assert_allclose(moved, odds / (1 + odds), rtol=1e-4)
    assert tables[0]["score"].equals(tables[1]["score"])
    told = [table.schema.field("probability").metadata[b"description"] for table in tables]
    assert told == [
        b"calibrated score, where a fraction 0.5 are lenses",
        b"calibrated score, where a fraction 0.0001 are lenses",
    ]


def test_a_prevalence_needs_a_calibration(tmp_path: Path) -> None:
    toy_models.make_member(tmp_path / "bare.onnx")
    with pytest.raises(InputError, match="prevalence: expected a calibration in bare"):
        open_ensemble(settings(tmp_path / "bare.onnx", tmp_path, prevalence=1e-4))
