"""The commit records of one stage, as a numbered log of small files.

A file of the log holds records that were committed together, one JSON object a line, and in its
last line how many they are and the SHA-256 of what stands before. Files are numbered from 0 without
a gap and each is created only where no other process created that number: a driver that lost its
run commits nothing, even where it does not know it yet, and no reader needs a listing that is up to
date. Every `BLOCK` files are put together into one, so that a long run leaves few files.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import groupby, islice
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from lenspipe.errors import CorruptRunError, StoppedError
from lenspipe.run.shard_record import ShardRecord, Stage
from lenspipe.storage.store import Store

FOLDER = "shards"
BLOCK = 64
_REMEDY = "lenspipe run --retry-failed does its rows again"
_THREADS = 16
M = TypeVar("M", bound=BaseModel)
_NAME = re.compile(rf"^{FOLDER}/(select|score)-(\d{{8}})(?:-(\d{{8}}))?\.jsonl$")


def is_record_file(name: str) -> bool:
    """Whether a file of the run is called as those of a log are."""
    return _NAME.match(name) is not None


class _Seal(BaseModel):
    """Last line of a file of the log."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    records: int
    sha256: str


@dataclass(frozen=True)
class Segment:
    """One file of the log: what stands for numbers first to last."""

    name: str
    first: int
    last: int
    records: list[ShardRecord]


def encode(records: Iterable[ShardRecord]) -> bytes:
    """A file of the log."""
    lines = [record.model_dump_json(exclude_defaults=True).encode() for record in records]
    body = b"".join(line + b"\n" for line in lines)
    seal = _Seal(records=len(lines), sha256=hashlib.sha256(body).hexdigest())
    return body + seal.model_dump_json().encode() + b"\n"


def decode(name: str, data: bytes) -> list[ShardRecord]:
    """Records of a file of the log; CorruptRunError names the file and the line."""
    lines = data.splitlines()
    seal = _parsed(name, len(lines), _Seal.model_validate_json, lines[-1] if lines else b"")
    body = data[: len(data) - len(lines[-1]) - 1]
    if (len(lines) - 1, hashlib.sha256(body).hexdigest()) != (seal.records, seal.sha256):
        raise CorruptRunError(f"{name}: changed: its records are not those that its last line says")
    parse = ShardRecord.model_validate_json
    return [_parsed(name, number, parse, line) for number, line in enumerate(lines[:-1], 1)]


def _parsed(name: str, line: int, parse: Callable[[bytes], M], text: bytes) -> M:
    try:
        return parse(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        place = f"{name}: line {line}" + (f": {where}" if where else "")
        raise CorruptRunError(f"{place}: {first['msg']}") from error


def _groups(wanted: Iterable[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
    """Files to read at the same time: small ones many, put-together ones each alone."""
    for whole, files in groupby(wanted, key=lambda numbers: numbers[0] != numbers[1]):
        while group := list(islice(files, 1 if whole else _THREADS)):
            yield group


class CommitLog:
    """Reads and extends the log of one stage; only the process that holds the lock extends it."""

    def __init__(self, store: Store, stage: Stage) -> None:
        self._store = store
        self._stage = stage
        self._next: int | None = None
        self._appended: tuple[list[ShardRecord], int] | None = None  # last, and its number

    def append(self, records: Sequence[ShardRecord]) -> None:
        """Commit records together, all or none. May be repeated with the same records.

        StoppedError where another process extended the log.
        """
        if self._appended is not None and self._appended[0] == list(records):
            self._next = self._appended[1] + 1
            return
        number = self._next if self._next is not None else self._end()
        name, data = self._name(number), encode(records)
        if not self._store.create(name, data) and self._store.read(name) != data:
            raise StoppedError(f"{self._store.url}/{name}: another process commits to this run")
        if (number + 1) % BLOCK == 0:
            self._put_together(number + 1 - BLOCK, number)
        self._appended = list(records), number  # in one step: a signal may end the driver here
        self._next = number + 1

    def segments(self) -> Iterator[Segment]:
        """The files of the log in their order; CorruptRunError where one is broken or lost.

        Of a file into which a live run puts together what was given out already, the rest.
        """
        number = 0  # one past what was given out
        given = 0  # records given out of the block that `number` is in
        for found in self._files():
            if found.last < number:
                continue
            if number % BLOCK == 0:
                given = 0
            fresh = found.records[given:] if found.first < number else found.records
            yield replace(found, first=max(found.first, number), records=fresh)
            given += len(fresh)
            number = found.last + 1
        self._next = number

    def _files(self) -> Iterator[Segment]:
        """Every file at least once. A listing only tells where to look first: what it lacks is
        asked for by name."""
        blocks, end = self._listed()
        wanted, number = [], 0
        while number < end:
            wanted.append((number, blocks.get(number, number)))
            number = wanted[-1][1] + 1
        number = 0
        with ThreadPoolExecutor(_THREADS) as pool:
            for group in _groups(wanted):
                for found, (first, _) in zip(pool.map(self._find, group), group, strict=True):
                    if found is None:
                        raise CorruptRunError(f"{self._name(first)}: lost: {_REMEDY}")
                    yield found
                    number = max(number, found.last + 1)
        while (found := self._find((number, number))) is not None:
            yield found
            number = found.last + 1

    def mend(self) -> list[str]:
        """Put a file without records in the place of each that is broken or lost; their names.

        What those held is committed no more. A file that is the last and lost leaves no gap, and
        none is made for it.
        """
        blocks, end = self._listed()
        mended: list[str] = []
        number = 0
        while True:
            numbers = number, blocks.get(number, number)
            place = self._place(numbers)
            if place is None and number >= end:
                break
            first, last = place or numbers
            name = self._name(first, last)
            if place is None or not self._is_sound(name):
                self._store.write(name, encode([]))
                mended.append(name)
            number = last + 1
        self._next, self._appended = number, None
        return mended

    def replace(self, segment: Segment, records: Sequence[ShardRecord]) -> None:
        """Put other records in the place of a file's."""
        self._store.write(segment.name, encode(records))
        self._appended = None

    def tidy(self) -> None:
        """Remove files whose records a put-together file holds: left by a killed process."""
        blocks, _ = self._listed()
        for first, last in blocks.items():
            self._remove(first, last)

    def erase(self) -> None:
        """Remove every file, those too that no listing shows yet: the next run would take them for
        its own.

        By name, the last first, so that an erasing that was killed finds the rest without a gap.
        """
        end = self._end_by_name()
        names: list[str] = []
        for start in range(0, end, BLOCK):
            stop = start + BLOCK
            names += [self._name(start, stop - 1), *map(self._name, range(start, stop))]
        with ThreadPoolExecutor(_THREADS) as pool:
            for _ in pool.map(self._store.delete, reversed(names)):
                pass
        self._next = self._appended = None

    def _end_by_name(self) -> int:
        """One past the last number; what the listing tells is the least that it can be."""
        _, end = self._listed()
        while (place := self._place((end, end))) is not None:
            end = place[1] + 1
        return end

    def _end(self) -> int:
        for _ in self.segments():
            pass
        return self._next or 0

    def _listed(self) -> tuple[dict[int, int], int]:
        """Put-together files by first number, and one past the last number of any file."""
        blocks: dict[int, int] = {}
        end = 0
        for name in self._store.names(FOLDER):
            match = _NAME.match(name)
            if match and match[1] == self._stage:
                last = int(match[3] or match[2])
                end = max(end, last + 1)
                if match[3]:
                    blocks[int(match[2])] = last
        return blocks, end

    def _find(self, numbers: tuple[int, int]) -> Segment | None:
        """The file of these numbers, or that into which the first was put together."""
        for first, last in self._places(numbers):
            name = self._name(first, last)
            try:
                data = self._store.read(name)
            except FileNotFoundError:
                continue
            try:
                return Segment(name, first, last, decode(name, data))
            except CorruptRunError as error:
                raise CorruptRunError(f"{error}: {_REMEDY}") from error
        return None

    def _place(self, numbers: tuple[int, int]) -> tuple[int, int] | None:
        """Numbers of the file that `_find` would read; None where there is none."""
        for first, last in self._places(numbers):
            if self._store.exists(self._name(first, last)):
                return first, last
        return None

    def _places(self, numbers: tuple[int, int]) -> list[tuple[int, int]]:
        block = numbers[0] - numbers[0] % BLOCK
        return list(dict.fromkeys([numbers, (block, block + BLOCK - 1)]))

    def _is_sound(self, name: str) -> bool:
        try:
            decode(name, self._store.read(name))
        except CorruptRunError:
            return False
        return True

    def _put_together(self, first: int, last: int) -> None:
        name = self._name(first, last)
        if not self._store.exists(name):
            records: list[ShardRecord] = []
            for number in range(first, last + 1):
                if (segment := self._find((number, number))) is None:
                    raise CorruptRunError(f"{self._name(number)}: lost: {_REMEDY}")
                records += segment.records
            self._store.write(name, encode(records))
        self._remove(first, last)

    def _remove(self, first: int, last: int) -> None:
        for number in range(first, last + 1):
            self._store.delete(self._name(number))

    def _name(self, first: int, last: int | None = None) -> str:
        numbers = f"{first:08d}" if last in (None, first) else f"{first:08d}-{last:08d}"
        return f"{FOLDER}/{self._stage}-{numbers}.jsonl"
