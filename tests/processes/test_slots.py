from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lenspipe.config import Runtime
from lenspipe.errors import InputError
from lenspipe.processes.slots import Machine, plan_slots, scorers_on


@given(
    st.integers(1, 64),
    st.integers(0, 8),
    st.floats(0.5, 8.0),
    st.floats(0.05, 1.0) | st.sampled_from([2.0, 3.0]),
    st.integers(0, 8),
)
def test_everything_that_is_planned_fits_at_once(
    cpus: int, gpus: int, per_scorer: float, gpus_per_scorer: float, readers: int
) -> None:
    runtime = Runtime(cpus_per_scorer=per_scorer, gpus_per_scorer=gpus_per_scorer, readers=readers)
    try:
        slots = plan_slots(Machine(cpus, gpus), runtime)
    except InputError as error:
        assert error.field == "runtime.scorers"
        return
    assert slots.scorers >= 1
    assert slots.scorers * slots.cpus + slots.readers <= cpus + 1e-6
    assert slots.scorers <= room(gpus, slots.gpus) if gpus else slots.gpus == 0
    assert slots.provider == ("cuda" if gpus else "cpu")


def test_a_cluster_that_grows_is_planned_at_its_largest() -> None:
    now, runtime = Machine(cpus=4.0, gpus=0.0), Runtime(provider="cuda", cpus_per_scorer=4)
    assert now.grown(None, runtime) == now
    with pytest.raises(InputError, match=r"runtime\.provider"):
        plan_slots(now, runtime)
    largest = now.grown(Machine(64.0, 8.0), runtime)
    assert largest == Machine(64.0 + 8 * 4, 8.0)
    assert plan_slots(largest, runtime).scorers == 8
    assert now.grown(Machine(2.0, 0.0), Runtime()) == now


def room(gpus: int, share: float) -> int:
    """Scorers that fit when each is put on the first device that has its share left, as Ray does;
    whole devices where the share is larger than one."""
    if share > 1:
        return gpus // int(share)
    left = [1.0] * gpus
    count = 0
    for device in range(gpus):
        while left[device] >= share - 1e-6:
            left[device] -= share
            count += 1
    return count


@pytest.mark.parametrize(
    ("gpus", "share", "scorers"),
    [(1, 0.25, 4), (2, 0.4, 4), (1, 1 / 3, 3), (3, 0.7, 3), (4, 1.0, 4), (5, 2.0, 2), (1, 0.1, 10)],
)
def test_a_share_lies_on_one_device(gpus: int, share: float, scorers: int) -> None:
    """Five shares of 0.4 make two devices by sum, but the fifth would wait for ever."""
    assert scorers_on(gpus, share) == scorers
    slots = plan_slots(Machine(64, gpus), Runtime(gpus_per_scorer=share))
    assert (slots.scorers, slots.gpus) == (scorers, share)


def test_one_device_and_a_half_is_refused() -> None:
    with pytest.raises(InputError, match=r"runtime\.gpus_per_scorer: .* found 1\.5"):
        plan_slots(Machine(64, 4), Runtime(gpus_per_scorer=1.5))


def test_one_scorer_per_cpu_by_default() -> None:
    slots = plan_slots(Machine(2, 0), Runtime())
    assert (slots.scorers, slots.threads, slots.gpus, slots.depth) == (2, 1, 0.0, 2)


def test_readers_that_would_wait_for_ever_are_refused() -> None:
    with pytest.raises(InputError, match="2 readers that fit into 2 CPUs"):
        plan_slots(Machine(2, 0), Runtime(readers=2))


def test_a_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(InputError, match=r"runtime\.provider"):
        plan_slots(Machine(2, 0), Runtime(provider="cuda"))
