"""What the heading of a column of positions says beside its name, mostly in brackets: an angle
(`RA [rad]`), a frame or an epoch (`RA (J2000)`)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

# Units of astropy and what headings call them. A list, as astropy reads most words as some unit:
# `PS1`, `Ks` and `rms` too.
_SPELLINGS = {
    "deg": "deg degree degrees °",
    "rad": "rad radian radians",
    "hourangle": "h hr hour hours hourangle",
    "arcmin": "arcmin",
    "arcsec": "arcsec",
    "mas": "mas",
}
_ANGLES = {word: unit for unit, words in _SPELLINGS.items() for word in words.split()}
# Frames that are ICRS to well under an arcsecond, which FK4 and B1950 are not, and epochs.
_FRAME = re.compile(r"icrs|fk5|epoch|equinox|j?(?!1950)(19|20)\d\d(\.\d*)?")
# `hms`, `dd:mm:ss.s`; a `d` may be degrees or days.
_NO_ANGLE = re.compile(r"[hd]+\W*m+\W*s+(\.s+)?|sexagesimal|d")
_BRACKETS = re.compile(r"[\[\]()]")


class Rank(IntEnum):
    """What a heading has beside its name, the surest position first."""

    NOTHING = 0
    ANGLE = 1
    FRAME = 2
    NO_ANGLE = 3
    OTHER = 4


class Heading(NamedTuple):
    """name: without brackets and capitals; unit: as astropy calls it, empty where none is told."""

    name: str
    unit: str
    rank: Rank


def read_heading(text: str) -> Heading:
    """What one heading says. Two angles, or hours, minutes and seconds, are told as a unit that is
    no angle."""
    name, *rest = (part.strip().lower() for part in _BRACKETS.split(text))
    parted = next((part for part in rest if _NO_ANGLE.fullmatch(part)), None)
    if parted is not None:
        return Heading(name, parted, Rank.NO_ANGLE)
    words = [word for part in rest for word in re.split(r"[\s,;]+", part) if word]
    angles = dict.fromkeys(_ANGLES[word] for word in words if word in _ANGLES)
    if len(angles) > 1 or not all(word in _ANGLES or _FRAME.fullmatch(word) for word in words):
        rank = Rank.OTHER
    elif angles:
        rank = Rank.ANGLE
    else:
        rank = Rank.FRAME if rest else Rank.NOTHING
    return Heading(name, " ".join(angles), rank)


def find_column(usual: Sequence[str], names: Sequence[str]) -> str | None:
    """The column of positions among `names`, by what is beside its name, then by the order of
    `usual` (without capitals), then by its place. None where there is none: an error of RA, a
    position in another frame."""
    headings = {name: read_heading(name) for name in names}
    found = [
        name for name, told in headings.items() if told.name in usual and told.rank != Rank.OTHER
    ]
    return min(found, key=lambda n: (headings[n].rank, usual.index(headings[n].name)), default=None)
