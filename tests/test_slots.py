from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lenspipe.config import Runtime
from lenspipe.errors import InputError
from lenspipe.slots import Machine, plan_slots


@given(
    st.integers(1, 64),
    st.integers(0, 8),
    st.floats(0.5, 8.0),
    st.floats(0.25, 2.0),
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
    assert slots.scorers * slots.gpus <= gpus + 1e-6
    assert slots.provider == ("cuda" if gpus else "cpu")


def test_one_scorer_per_cpu_by_default() -> None:
    slots = plan_slots(Machine(2, 0), Runtime())
    assert (slots.scorers, slots.threads, slots.gpus, slots.depth) == (2, 1, 0.0, 2)


def test_readers_that_would_wait_for_ever_are_refused() -> None:
    with pytest.raises(InputError, match="2 readers that fit into 2 CPUs"):
        plan_slots(Machine(2, 0), Runtime(readers=2))


def test_a_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(InputError, match=r"runtime\.provider"):
        plan_slots(Machine(2, 0), Runtime(provider="cuda"))
