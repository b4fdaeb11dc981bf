"""The path of a GPU, walked without one: device buffers on the CPU, two batches in flight, and a
device whose memory is short."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lenspipe.errors import MemberError
from lenspipe.models import session as session_module
from lenspipe.models.card import ImageInput, read_card, write_card
from lenspipe.models.ensemble import load_ensemble
from lenspipe.models.feed import DeviceFeed, Specs, ahead
from lenspipe.models.memory import OUT_OF_MEMORY
from lenspipe.models.session import Member
from tests import toy_models
from training.half import with_input_type

SHAPE = (3, 8, 8)


def pixels(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, *SHAPE)).astype(np.float32)


def expected(images: np.ndarray) -> np.ndarray:
    return toy_models.expected_logits(images, toy_models.make_weights(SHAPE), 0.5)


def assert_close(found: np.ndarray, wanted: np.ndarray) -> None:
    """Float32 sums of 192 products in another order."""
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def device_feed(session: Any, output: str, specs: Specs, provider: str, device: int) -> DeviceFeed:
    """What a GPU gets, with its buffers in the CPU's memory."""
    assert provider == "cpu"
    return DeviceFeed(session, output, specs, None, "cpu", device)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    toy_models.make_member(tmp_path / "toy.onnx", bias=0.5)
    return tmp_path / "toy.onnx"


@pytest.fixture
def on_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "make_feed", device_feed)


@pytest.mark.usefixtures("on_device")
@pytest.mark.parametrize("rows", [0, 1, 4, 5, 8, 23])
def test_device_buffers_give_the_same_logits(path: Path, rows: int) -> None:
    member = Member.load(path, "cpu", batch_size=4)
    images = pixels(rows)
    if rows > 2:
        images[2, 0, 0, 0] = np.nan
    wanted = expected(images)
    for _ in range(2):  # buffers are used again
        assert_close(member.predict({"image": images}), wanted)


@pytest.mark.usefixtures("on_device")
@pytest.mark.parametrize(
    ("dtype", "quantum", "zero_level"),
    [("float16", None, 0.0), ("int16", 1e-3, 0.0), ("uint16", 1e-3, -20.0)],
)
def test_small_types_go_through_device_buffers(
    path: Path, dtype: str, quantum: float | None, zero_level: float
) -> None:
    """Tolerances as in test_encode.py: what the types round away."""
    card = read_card(path)
    changes = {"dtype": dtype, "quantum": quantum, "zero_level": zero_level}
    image = ImageInput.model_validate({**card.images[0].model_dump(), **changes})
    small, card = with_input_type(onnx.load(str(path)), card, {"image": image})
    write_card(small, card, path)
    member = Member.load(path, "cpu", batch_size=4)
    assert {b.dtype.name for b in member._feed.buffers(1).values()} == {dtype}
    np.testing.assert_allclose(
        member.predict({"image": pixels(11)}), expected(pixels(11)), atol=2e-3
    )


@pytest.mark.usefixtures("on_device")
def test_a_staged_partial_batch_holds_no_rows_of_before(path: Path) -> None:
    member = Member.load(path, "cpu", batch_size=4)
    member.predict({"image": pixels(12) + 10.0})
    member.predict({"image": pixels(5) + 10.0})
    for slot, kept in ((0, 4), (1, 1)):
        buffer = member._feed.buffers(slot)["image"]
        assert (buffer[:kept] != 0).all()
        assert not buffer[kept:].any()


@pytest.mark.usefixtures("on_device")
def test_the_next_batch_is_staged_while_one_runs(path: Path) -> None:
    """`run` waits for the next batch's `stage`: it would wait for ever if they took turns."""
    member = Member.load(path, "cpu", batch_size=4)
    feed = member._feed
    staged = [threading.Event() for _ in range(5)]
    count = {"stage": 0, "run": 0}
    stage, run = feed.stage, feed.run

    def watched_stage(slot: int, batch: Mapping[str, np.ndarray]) -> None:
        stage(slot, batch)
        staged[count["stage"]].set()
        count["stage"] += 1

    def watched_run(slot: int) -> np.ndarray:
        turn = count["run"]
        count["run"] += 1
        assert staged[min(turn + 1, 4)].wait(timeout=20)
        return run(slot)

    feed.stage = watched_stage  # type: ignore[method-assign]
    feed.run = watched_run  # type: ignore[method-assign]
    images = pixels(20)
    assert_close(member.predict({"image": images}), expected(images))
    assert count == {"stage": 5, "run": 5}


def test_the_cpu_uses_no_second_thread(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing can overlap, a hand-over to a thread would only cost."""
    threads: set[str] = set()
    member = Member.load(path, "cpu", batch_size=4)
    stage = member._feed.stage

    def watched(slot: int, batch: Mapping[str, np.ndarray]) -> None:
        threads.add(threading.current_thread().name)
        stage(slot, batch)

    monkeypatch.setattr(member._feed, "stage", watched)
    member.predict({"image": pixels(20)})
    assert threads == {threading.current_thread().name}


def test_ahead_raises_where_the_turn_is() -> None:
    def make(item: int) -> int:
        if item == 3:
            raise ValueError("three")
        return item * 10

    for overlap in (False, True):
        seen = []
        with pytest.raises(ValueError, match="three"):
            for value in ahead(make, range(6), overlap):
                seen.append(value)  # noqa: PERF402  # what came before the fault is the point
        assert seen == [0, 10, 20]
        assert list(ahead(make, [], overlap)) == []


# The first as users of ONNX Runtime reported it (its issues 9939, 16307, 22702), the second from
# the strings of its library; CUDA's and cuDNN's after the form in which it tells their errors.
TEXTS = [
    "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Non-zero status code returned while running Conv "
    "node. Name:'/patch_embed/Conv' Status Message: /onnxruntime_src/onnxruntime/core/framework/"
    "bfc_arena.cc:376 void* onnxruntime::BFCArena::AllocateRawInternal(size_t, bool, "
    "onnxruntime::Stream*, bool, onnxruntime::WaitNotificationFn) Failed to allocate memory for "
    "requested buffer of size 8388608000",
    "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : bfc_arena.cc:359 Available memory of 1048576 is "
    "smaller than requested bytes of 8388608",
    "[ONNXRuntimeError] : 1 : FAIL : CUDA failure 2: out of memory ; GPU=0 ; hostname=node ; "
    "expr=cudaMalloc((void**)&p, size);",
    "CUDNN failure 4: CUDNN_STATUS_ALLOC_FAILED ; GPU=0",
]


class Small:
    """A feed in front of a device that holds `limit` rows of a batch and no more."""

    def __init__(self, inner: DeviceFeed, rows: int, limit: int, text: str, at: str) -> None:
        if at == "make" and rows > limit:
            raise RuntimeError(text)
        self._inner, self._full = inner, rows > limit
        self._text, self._at = text, at
        self.slots = inner.slots
        self.buffers = inner.buffers

    def stage(self, slot: int, batch: Mapping[str, np.ndarray]) -> None:
        self._raise("stage")
        self._inner.stage(slot, batch)

    def run(self, slot: int) -> np.ndarray:
        self._raise("run")
        return self._inner.run(slot)

    def _raise(self, at: str) -> None:
        if self._full and at == self._at:
            raise RuntimeError(self._text)


def small_memory(
    monkeypatch: pytest.MonkeyPatch, limit: int, text: str = TEXTS[0], at: str = "run"
) -> None:
    def make(session: Any, output: str, specs: Specs, provider: str, device: int) -> Small:
        rows = next(iter(specs.values()))[0][0]
        return Small(device_feed(session, output, specs, provider, device), rows, limit, text, at)

    monkeypatch.setattr(session_module, "make_feed", make)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("at", ["make", "stage", "run"])
def test_out_of_memory_is_answered_by_a_smaller_batch(
    path: Path, monkeypatch: pytest.MonkeyPatch, text: str, at: str
) -> None:
    small_memory(monkeypatch, 5, text, at)
    member = Member.load(path, "cpu", batch_size=32)
    images = pixels(21)
    images[7, 0, 0, 0] = np.inf
    wanted = expected(images)
    wanted[7] = np.nan
    assert_close(member.predict({"image": images}), wanted)
    assert (member.batch_size, member.halvings) == (4, 3)


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 30), st.integers(1, 9), st.integers(0, 3))
def test_memory_that_runs_short_in_the_middle_costs_no_row(
    tmp_path_factory: pytest.TempPathFactory, rows: int, limit: int, after: int
) -> None:
    """Other processes may take the memory at any batch: what is done stays, the rest is halved."""
    path = tmp_path_factory.mktemp("oom") / "toy.onnx"
    toy_models.make_member(path, bias=0.5)
    member = Member.load(path, "cpu", batch_size=8)
    runs, run = [0], type(member._feed).run

    def short(feed: Any, slot: int) -> np.ndarray:
        runs[0] += 1
        if runs[0] > after and member.batch_size > limit:
            raise RuntimeError(TEXTS[0])
        return np.asarray(run(feed, slot))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(member._feed), "run", short)
        images = pixels(rows)
        assert_close(member.predict({"image": images}), expected(images))


@pytest.mark.parametrize("at", ["stage", "run"])
@pytest.mark.parametrize("warming", [True, False])
def test_old_buffers_are_gone_before_new_ones_are_made(
    path: Path, monkeypatch: pytest.MonkeyPatch, at: str, warming: bool
) -> None:
    """Both at once would not fit. No collection of cycles helps: one may be long in coming."""
    feeds: list[weakref.ref[DeviceFeed]] = []
    alive: list[int] = []

    def make(*wanted: Any) -> DeviceFeed:
        alive.append(sum(feed() is not None for feed in feeds))
        feed = device_feed(*wanted)
        feeds.append(weakref.ref(feed))
        return feed

    calls, real = [0], getattr(DeviceFeed, at)
    failing = (1, 2) if warming else (4, 6)

    def short(feed: DeviceFeed, *wanted: Any) -> Any:
        calls[0] += 1
        if calls[0] in failing:
            raise RuntimeError(TEXTS[0])
        return real(feed, *wanted)

    monkeypatch.setattr(session_module, "make_feed", make)
    monkeypatch.setattr(DeviceFeed, at, short)
    images = pixels(60)
    gc.disable()
    try:
        member = Member.load(path, "cpu", batch_size=16)
        assert_close(member.predict({"image": images}), expected(images))
    finally:
        gc.enable()
    assert (member.halvings, alive) == (2, [0, 0, 0])


def test_a_device_that_cannot_hold_one_row_is_an_error(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_memory(monkeypatch, 0)
    with pytest.raises(MemberError, match=r"toy: .*Failed to allocate memory"):
        Member.load(path, "cpu", batch_size=32)


def test_another_fault_halves_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_memory(monkeypatch, 0, "CUDA failure 700: an illegal memory access was encountered")
    with pytest.raises(MemberError, match="illegal memory access"):
        Member.load(path, "cpu", batch_size=32)


def test_an_ensemble_tells_how_often_it_halved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(toy_models.make_ensemble(tmp_path))
    images = {"image": pixels(13)}
    wanted = load_ensemble(path, provider="cpu", batch_size=8).score(images)
    small_memory(monkeypatch, 2)
    ensemble = load_ensemble(path, provider="cpu", batch_size=8)
    assert ensemble.halvings == 4
    assert_close(ensemble.score(images).score, wanted.score)


def test_rows_at_fault_are_isolated_on_a_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "make_feed", device_feed)
    path = toy_models.make_ensemble(tmp_path, poison=True)
    ensemble = load_ensemble(str(path), provider="cpu", batch_size=4)
    images = pixels(17)
    wanted = ensemble.score({"image": images}).score
    images[[3, 4, 16], 0, 0, 0] = 2 * toy_models.POISON
    found = ensemble.score({"image": images})
    good = np.setdiff1d(np.arange(17), [3, 4, 16])
    assert sorted(found.failed) == [3, 4, 16]
    assert_close(found.score[good], wanted[good])


@pytest.mark.parametrize("text", ["out of data bounds", "invalid argument: ConstantAllocation"])
def test_other_words_are_no_shortage(text: str) -> None:
    assert not OUT_OF_MEMORY.search(text)
