"""Checksums of FITS units: cards DATASUM and CHECKSUM (FITS standard 4.0, section 4.4.2.7 and
appendix J): 32-bit ones' complement sums of the data, and of the whole unit."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from lenspipe.cutouts.faults import UnreadableError

_ONES = 0xFFFFFFFF
_STEP = 1024 * 1024  # a multiple of 4, so that no word is split


def sum32(parts: Iterator[bytes | memoryview]) -> int:
    """Ones' complement sum of big-endian words; all parts but the last hold whole words."""
    total = 0
    for part in parts:
        if len(part) % 4:
            part = bytes(part) + bytes(-len(part) % 4)  # noqa: PLW2901 - padded for the sum alone
        words = np.frombuffer(part, np.uint32)
        if np.little_endian:
            words = words.byteswap()
        total += int(words.sum(dtype=np.uint64))
    return _folded(total)


def _folded(total: int) -> int:
    while total >> 32:
        total = (total & _ONES) + (total >> 32)
    return total


def steps(start: int, stop: int) -> Iterator[tuple[int, int]]:
    """(offset, length) of the parts in which bytes [start, stop) are summed."""
    for offset in range(start, stop, _STEP):
        yield offset, min(_STEP, stop - offset)


def check(header: int, data: int, datasum: object, checksum: object) -> None:
    """UnreadableError where the sums of a unit's header and data do not fit its cards. A card that
    is missing or empty says nothing; one that is no sum was damaged."""
    told = str(datasum or "").strip()
    if told and not re.fullmatch(r"\d{1,10}", told):
        raise UnreadableError(f"card DATASUM: expected a number, found {told[:20]!r}")
    if told and int(told) != data:
        raise UnreadableError(f"damaged: sum of the data {data}, card DATASUM says {told}")
    if str(checksum or "").strip("0 ") and _folded(header + data) not in (0, _ONES):
        raise UnreadableError("damaged: header and data do not fit card CHECKSUM")
