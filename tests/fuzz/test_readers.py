"""A short fuzzing of the cutout readers; the long one is `tests/fuzz/fuzz_readers.py`."""

from __future__ import annotations

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.fuzz.damaged_stores import WRITERS, write

PATCHES = st.lists(
    st.tuples(st.integers(0, 2**20), st.binary(min_size=1, max_size=40)), min_size=1, max_size=3
)


@pytest.mark.parametrize("name", sorted(WRITERS))
@pytest.mark.timeout(60)
def test_a_damaged_store_gives_rows_failures_or_one_line(
    name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    store = write(name, tmp_path_factory.mktemp(name) / "store")

    @settings(max_examples=15, deadline=None, database=None, phases=[Phase.generate])
    @given(st.integers(0, 255), PATCHES, st.none() | st.integers(0, 2**20))
    def check(which: int, patches: list[tuple[int, bytes]], cut: int | None) -> None:
        store.damaged(which, patches, cut)

    check()
