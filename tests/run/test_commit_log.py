from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lenspipe.errors import CorruptRunError, StoppedError
from lenspipe.run.commit_log import BLOCK, FOLDER, CommitLog, decode, encode
from lenspipe.run.shard_record import ShardRecord
from lenspipe.storage.store import Store


def record(start: int, **fields: object) -> ShardRecord:
    counts = {"rows_in": 1, "rows_out": 1, "rows_failed": 0}
    return ShardRecord(stage="score", start=start, stop=start + 1, **counts, **fields)


def starts(store: Store) -> list[int]:
    return [r.start for segment in CommitLog(store, "score").segments() for r in segment.records]


def fill(store: Store, files: int) -> None:
    log = CommitLog(store, "score")
    for number in range(files):
        log.append([record(2 * number), record(2 * number + 1)])


class LaggingStore(Store):
    """A listing in which some names are not to be seen yet."""

    hidden: tuple[str, ...] = ()

    def names(self, folder: str = "") -> list[str]:
        return [name for name in super().names(folder) if name not in self.hidden]

    def delete_folder(self, folder: str) -> None:
        for name in self.names(folder):
            self.delete(name)


@pytest.mark.parametrize("files", [0, 1, BLOCK - 1, BLOCK, 2 * BLOCK + 3])
def test_what_was_appended_is_read_in_its_order(tmp_path: Path, files: int) -> None:
    store = Store(str(tmp_path))
    fill(store, files)
    assert starts(store) == list(range(2 * files))
    assert len(store.names(FOLDER)) == files // BLOCK + files % BLOCK
    CommitLog(store, "score").append([record(2 * files)])  # another process goes on
    assert starts(store) == list(range(2 * files + 1))


def test_the_other_stage_has_a_log_of_its_own(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    fill(store, 3)
    assert list(CommitLog(store, "select").segments()) == []


def test_an_append_that_is_repeated_counts_once(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    fill(store, 1)
    first, second = CommitLog(store, "score"), CommitLog(store, "score")
    first.append([record(2)])
    second._next = 1  # its answer was lost
    second.append([record(2)])
    assert starts(store) == [0, 1, 2]


def test_an_append_whose_end_was_not_noted_counts_once(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    log = CommitLog(store, "score")
    for start in (0, 0, 1, 1):  # a signal came between the write and its note
        log.append([record(start)])
    assert starts(store) == [0, 1]
    taken_back, *_ = log.segments()
    log.replace(taken_back, [])
    log.append([record(0)])
    assert starts(store) == [1, 0]


def test_a_driver_that_lost_its_run_commits_nothing(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    fill(store, 1)
    paused, successor = CommitLog(store, "score"), CommitLog(store, "score")
    assert len(list(paused.segments())) == 1
    successor.append([record(2)])
    with pytest.raises(StoppedError, match="another process commits"):
        paused.append([record(3)])
    assert starts(store) == [0, 1, 2]


def test_files_are_not_put_together_where_one_is_lost(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    log = CommitLog(store, "score")
    for number in range(BLOCK - 1):
        log.append([record(number)])
    store.delete(f"{FOLDER}/score-00000005.jsonl")
    with pytest.raises(CorruptRunError, match=r"score-00000005\.jsonl: lost"):
        log.append([record(BLOCK - 1)])
    assert len(store.names(FOLDER)) == BLOCK - 1


def test_a_block_that_was_put_together_half_counts_once(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    fill(store, BLOCK - 1)
    left = {name: store.read(name) for name in store.names(FOLDER)}
    CommitLog(store, "score").append([record(2 * BLOCK - 2)])
    for name, data in left.items():  # a kill came before they were removed
        store.write(name, data)
    assert starts(store) == list(range(2 * BLOCK - 1))
    CommitLog(store, "score").tidy()
    assert store.names(FOLDER) == [f"{FOLDER}/score-00000000-{BLOCK - 1:08d}.jsonl"]
    assert starts(store) == list(range(2 * BLOCK - 1))


def test_a_listing_that_lags_behind_hides_no_commit(tmp_path: Path) -> None:
    fill(Store(str(tmp_path)), BLOCK + 5)
    names = Store(str(tmp_path)).names(FOLDER)
    store = LaggingStore(str(tmp_path))
    for hidden in [names[:1], names[1:3], names[-1:], names[-3:], names]:
        store.hidden = tuple(hidden)
        assert starts(store) == list(range(2 * BLOCK + 10))
    log = CommitLog(store, "score")
    log.append([record(2 * BLOCK + 10)])
    assert starts(store) == list(range(2 * BLOCK + 11))


@pytest.mark.parametrize("read", [0, 10, 20, BLOCK - 2])
def test_a_reader_sees_each_commit_once_while_files_are_put_together(
    tmp_path: Path, read: int
) -> None:
    store = Store(str(tmp_path))
    log = CommitLog(store, "score")
    for number in range(BLOCK - 1):
        log.append([record(2 * number), record(2 * number + 1)] if number else [record(0)])
    seen: list[int] = []
    for at, segment in enumerate(CommitLog(store, "score").segments()):
        seen += [found.start for found in segment.records]
        if at == read:
            log.append([record(2 * BLOCK - 2)])
            log.append([record(2 * BLOCK - 1)])
    assert seen == [0, *range(2, 2 * BLOCK)]


def test_a_lost_file_is_named(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    fill(store, 4)
    store.delete(f"{FOLDER}/score-00000001.jsonl")
    with pytest.raises(CorruptRunError, match=r"shards/score-00000001\.jsonl: lost"):
        starts(store)


def test_other_records_may_take_the_place_of_a_files(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    fill(store, 3)
    log = CommitLog(store, "score")
    segments = list(log.segments())
    log.replace(segments[1], [])
    assert starts(store) == [0, 1, 4, 5]
    log.append([record(2)])
    assert starts(store) == [0, 1, 4, 5, 2]


@pytest.mark.parametrize("lost", [True, False])
def test_a_log_goes_on_without_a_file_that_is_broken_or_lost(tmp_path: Path, lost: bool) -> None:
    store = Store(str(tmp_path))
    fill(store, BLOCK + 5)
    log = CommitLog(store, "score")
    assert log.mend() == []
    broken = f"{FOLDER}/score-{BLOCK + 1:08d}.jsonl"
    if lost:
        store.delete(broken)
    else:
        store.write(broken, store.read(broken)[:-9])
    with pytest.raises(CorruptRunError, match=r"score-0+65\.jsonl: .*--retry-failed does its rows"):
        starts(store)
    assert log.mend() == [broken]
    whole = list(range(2 * BLOCK + 10))
    assert starts(store) == [*whole[: 2 * BLOCK + 2], *whole[2 * BLOCK + 4 :]]
    log.append([record(2 * BLOCK + 2), record(2 * BLOCK + 3)])
    assert sorted(starts(store)) == whole


@pytest.mark.parametrize("lost", [True, False])
def test_a_log_goes_on_without_a_put_together_file(tmp_path: Path, lost: bool) -> None:
    store = Store(str(tmp_path))
    fill(store, BLOCK + 1)
    block = f"{FOLDER}/score-00000000-{BLOCK - 1:08d}.jsonl"
    if lost:
        store.delete(block)
    else:
        store.write(block, b"")
    assert len(CommitLog(store, "score").mend()) == (BLOCK if lost else 1)
    assert starts(store) == [2 * BLOCK, 2 * BLOCK + 1]
    CommitLog(store, "score").append([record(0)])
    assert starts(store) == [2 * BLOCK, 2 * BLOCK + 1, 0]


@pytest.mark.parametrize("hidden", [slice(1), slice(1, 3), slice(3, 4), slice(-1, None), slice(99)])
def test_an_erased_log_is_empty_whatever_a_listing_hid(tmp_path: Path, hidden: slice) -> None:
    store = LaggingStore(str(tmp_path))
    fill(store, BLOCK + 5)
    left = f"{FOLDER}/score-00000007.jsonl"  # a kill came while a block was put together
    store.write(left, encode([record(14)]))
    store.hidden = tuple(store.names(FOLDER)[hidden])
    CommitLog(store, "score").erase()
    store.hidden = ()
    assert store.names(FOLDER) == []
    assert starts(store) == []


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_a_file_that_was_changed_is_never_read(data: st.DataObject) -> None:
    whole = encode([record(start, seconds={"read": 0.25}) for start in range(3)])
    assert [found.start for found in decode("a", whole)] == [0, 1, 2]
    at = data.draw(st.integers(0, len(whole) - 1))
    flipped = bytearray(whole)
    flipped[at] ^= 1 << data.draw(st.integers(0, 7))
    for damaged in (bytes(flipped), whole[:at]):
        if damaged.rstrip() == whole.rstrip():
            continue
        with pytest.raises(CorruptRunError, match=r"^a: "):
            decode("a", damaged)
