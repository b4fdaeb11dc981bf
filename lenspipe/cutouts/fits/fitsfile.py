"""FITS images without a full parse: cards by key, pixels straight from the file's bytes.

Plain images are read by strips of rows (small files whole); compressed ones (`.fz`) go through
astropy. Files that end too early are refused before a pixel is read.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
from astropy.io import fits

from lenspipe.cutouts.faults import (
    READ_ERRORS,
    UnreadableError,
    of_the_process,
    raise_if_of_the_process,
)
from lenspipe.cutouts.files.storedfile import (
    BytesFile,
    Stored,
    gunzip,
    is_remote,
    open_stored,
    read_whole,
)
from lenspipe.cutouts.fits import checksums

BLOCK = 2880
CARD = 80
_MAX_HEADER_BLOCKS = 4096
_DTYPES = {8: "u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}
_MOST_VALUES = 2**50
_COUNTS = ("NAXIS", "ZNAXIS")
_FEW = frozenset((b"", b"0", b"1", b"2", b"3"))
_STRUCTURE = (
    *("SIMPLE", "XTENSION", "BITPIX", "NAXIS", "NAXIS1", "NAXIS2", "NAXIS3", "PCOUNT", "GCOUNT"),
    *("BSCALE", "BZERO", "BLANK"),
    *("ZIMAGE", "ZBITPIX", "ZNAXIS", "ZNAXIS1", "ZNAXIS2", "ZNAXIS3"),
)
_COMMENTARY = frozenset(("", "COMMENT", "HISTORY", "CONTINUE", "HIERARCH"))

_STRIP_BYTES = 4 * 1024 * 1024
_PACKED_STRIP_BYTES = 64 * 1024 * 1024

# Most that a `.gz` may become: images with noise shrink to a third, only empty ones to far less.
_MOST_UNPACKED_BYTES, _MOST_UNPACKED_TIMES = 512 * 1024 * 1024, 100

Fetch = Callable[[int, int], bytes]


@lru_cache(maxsize=4096)  # the stamps of a survey differ in few of their cards
def card_value(card: bytes) -> str | int | float | bool | None:
    """Value of one 80-byte card (FITS standard 4.0, section 4.2); None where it has none."""
    if card[8:10] != b"= ":
        return None
    text = card[10:].decode("ascii", "replace").strip()
    if text.startswith("'"):
        return _string_value(text)
    text = text.split("/", 1)[0].strip()
    if text in ("T", "F"):
        return text == "T"
    for kind in (int, float):
        try:
            return kind(text.upper().replace("D", "E"))
        except ValueError:
            continue
    return None


def _string_value(text: str) -> str:
    parts: list[str] = []
    rest = text[1:]
    while True:
        head, _, rest = rest.partition("'")
        parts.append(head)
        if not rest.startswith("'"):
            return "'".join(parts).rstrip()
        rest = rest[1:]


@dataclass(frozen=True)
class Layout:
    """How the data of a unit lies in its file. shape: (y, x) of a two-dimensional image, else
    None; data_bytes: without padding; bitpix: type code of the pixels, before compression; scale,
    zero, blank: physical value = scale * stored + zero, NaN where the stored one is `blank`."""

    shape: tuple[int, int] | None
    data_bytes: int
    bitpix: int
    scale: float = 1.0
    zero: float = 0.0
    blank: int | None = None

    @property
    def scaled(self) -> bool:
        """Whether physical values differ from those stored."""
        return (self.scale, self.zero) != (1.0, 0.0) or self.blank is not None


@dataclass(frozen=True)
class Hdu:
    """One header-data unit. cards: keyword -> its 80 bytes; offset: of the data, in bytes; start:
    of the header."""

    cards: dict[str, bytes]
    offset: int
    start: int = 0

    def value(self, key: str) -> str | int | float | bool | None:
        """Value of a card; None where the header lacks it."""
        card = self.cards.get(key.upper())
        return None if card is None else card_value(card)

    def number(self, key: str, default: float | None = None) -> float:
        """A numeric card. UnreadableError where it is missing (without default) or no number."""
        value = self.value(key)
        if value is None and key not in self.cards and default is not None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UnreadableError(f"card {key}: expected a number, found {value!r}")
        return value

    def integer(self, key: str, default: int | None = None) -> int:
        """A card that holds a whole number; see `number`."""
        value = self.number(key, default)
        if not math.isfinite(value) or value != int(value):
            raise UnreadableError(f"card {key}: expected a whole number, found {value!r}")
        return int(value)

    @property
    def name(self) -> str:
        """EXTNAME, upper case."""
        return str(self.value("EXTNAME") or "").upper()

    @property
    def compressed(self) -> bool:
        """Whether a tile-compressed image is stored in this binary table."""
        return self.value("ZIMAGE") is True

    @property
    def bitpix(self) -> int:
        """Type code of the image's pixels as stored."""
        return self.integer("BITPIX")

    @cached_property
    def layout(self) -> Layout:
        """How the data lies in the file. UnreadableError where the cards do not tell."""
        if all(self.cards.get(key, b"")[10:].split(b"/")[0].strip() in _FEW for key in _COUNTS):
            return _layout_of(tuple(map(self.cards.get, _STRUCTURE)))
        return self.parse_layout()

    def parse_layout(self) -> Layout:
        """`layout` by a look at every card."""
        data_bytes, shape = self._data_bytes(), self._shape()
        if shape is None:
            return Layout(None, data_bytes, 0)
        if self.compressed:
            return Layout(shape, data_bytes, self.integer("ZBITPIX"))
        bitpix = self.bitpix
        if bitpix not in _DTYPES:
            raise UnreadableError(f"card BITPIX: expected a FITS type, found {bitpix}")
        blank = self.integer("BLANK") if bitpix > 0 and "BLANK" in self.cards else None
        scale, zero = self.number("BSCALE", 1.0), self.number("BZERO", 0.0)
        return Layout(shape, data_bytes, bitpix, scale, zero, blank)

    @property
    def data_bytes(self) -> int:
        """Length of the data, without padding."""
        return self.layout.data_bytes

    @property
    def shape(self) -> tuple[int, int] | None:
        """(y, x) of a two-dimensional image (outer axes of length one allowed), else None."""
        return self.layout.shape

    def _data_bytes(self) -> int:
        axes = self._axes("NAXIS")
        if not axes:
            return 0
        count = self.integer("GCOUNT", 1) * (self.integer("PCOUNT", 0) + math.prod(axes))
        if not 0 <= count < _MOST_VALUES:
            raise UnreadableError(f"cards NAXISn, PCOUNT, GCOUNT: {count} values")
        return abs(self.bitpix) // 8 * count

    def _shape(self) -> tuple[int, int] | None:
        prefix = "ZNAXIS" if self.compressed else "NAXIS"
        if not self.compressed and "XTENSION" in self.cards and self.value("XTENSION") != "IMAGE":
            return None
        axes = self._axes(prefix)
        if len(axes) < 2 or any(n != 1 for n in axes[2:]) or min(axes[:2]) < 1:
            return None
        return axes[1], axes[0]

    def _axes(self, prefix: str) -> tuple[int, ...]:
        count = self.integer(prefix)
        if not 0 <= count <= 999:
            raise UnreadableError(f"card {prefix}: expected 0 to 999, found {count}")
        axes = tuple(self.integer(f"{prefix}{i}") for i in range(1, count + 1))
        if any(not 0 <= n < 2**40 for n in axes):
            raise UnreadableError(f"card {prefix}n: expected lengths of axes, found {axes}")
        return axes


@lru_cache(maxsize=1024)  # the stamps of a survey share nearly all of these cards
def _layout_of(cards: tuple[bytes | None, ...]) -> Layout:
    named = zip(_STRUCTURE, cards, strict=True)
    return Hdu({key: card for key, card in named if card is not None}, 0).parse_layout()


@lru_cache(maxsize=4096)
def _keyword(text: bytes) -> str:
    return text.rstrip().decode("ascii", "replace")


def _read_header(fetch: Fetch, offset: int) -> tuple[dict[str, bytes], int]:
    cards: dict[str, bytes] = {}
    for _ in range(_MAX_HEADER_BLOCKS):
        block = fetch(offset, BLOCK)
        offset += BLOCK
        if len(block) < BLOCK:
            raise UnreadableError("the file ends inside a header")
        for start in range(0, BLOCK, CARD):
            card = block[start : start + CARD]
            key = _keyword(card[:8])
            if key == "END":
                return cards, offset
            if key not in _COMMENTARY:
                known = cards.setdefault(key, card)
                if known is not card and known != card:
                    _check_double(key, known, card)
    raise UnreadableError("no END card")


def _check_double(key: str, first: bytes, second: bytes) -> None:
    """UnreadableError where a card that says how pixels lie stands twice with two values: which
    one holds nobody can say, and libraries differ."""
    if key not in _STRUCTURE and not key.startswith(("NAXIS", "ZNAXIS")):
        return
    values = card_value(first), card_value(second)
    if values[0] != values[1]:
        raise UnreadableError(f"card {key}: expected once, found {values[0]!r} and {values[1]!r}")


def scan(fetch: Fetch, size: int) -> Iterator[Hdu]:
    """The units of a file of `size` bytes, one after the other; `fetch(offset, n)` reads it.

    UnreadableError where it is no FITS file, or ends inside a header or before the next one.
    """
    if fetch(0, 9) != b"SIMPLE  =":
        raise UnreadableError("not a FITS file")
    offset = 0
    while offset < size:
        if offset and fetch(offset, 8) != b"XTENSION":
            return  # the standard allows special records after the last unit
        cards, data = _read_header(fetch, offset)
        hdu = Hdu(cards, data, offset)
        yield hdu
        check_length(hdu, size)
        offset = data + -(-hdu.data_bytes // BLOCK) * BLOCK


def card_number(hdu: Hdu, key: str) -> float:
    """A numeric card, NaN where it is missing or no number: a bad value of one file is a failure
    of its rows, not of the file."""
    try:
        return hdu.number(key)
    except UnreadableError:
        return float("nan")


def check_length(hdu: Hdu, size: int) -> None:
    """UnreadableError where a file of `size` bytes ends inside the data of `hdu`."""
    end = hdu.offset + hdu.data_bytes
    if end > size:
        raise UnreadableError(f"truncated: {size} bytes, {end} expected")


class Image:
    """The pixels of one image unit, read by strips of rows."""

    def __init__(self, file: FitsFile, hdu: Hdu, index: int, shape: tuple[int, int]) -> None:
        self.hdu = hdu
        self.shape = shape
        self._file = file
        self._index = index

    @property
    def row_bytes(self) -> int:
        """Bytes of one row of pixels before compression."""
        return self.shape[1] * abs(self.hdu.layout.bitpix) // 8

    @property
    def strip_bytes(self) -> int:
        """Most bytes of a strip that are worth reading at once: a cache holds them, or, where
        they must be unpacked, the tiles that two strips share are few."""
        return _PACKED_STRIP_BYTES if self.hdu.compressed else _STRIP_BYTES

    def rows(self, start: int, stop: int) -> np.ndarray[Any, Any]:
        """Physical values of rows [start, stop). UnreadableError where the file is too short."""
        check_length(self.hdu, self._file.size)
        if self.hdu.compressed:
            padded = self.hdu.offset + -(-self.hdu.data_bytes // BLOCK) * BLOCK
            if padded > self._file.size:  # astropy warns of it, once per file and process
                raise UnreadableError(f"truncated: {self._file.size} bytes, {padded} expected")
            return self._file.decompress(self._index, start, stop)
        offset = self.hdu.offset + start * self.row_bytes
        dtype = _DTYPES[self.hdu.layout.bitpix]
        stored = self._file.array(offset, (stop - start, self.shape[1]), dtype)
        return _physical(stored, self.hdu.layout) if self.hdu.layout.scaled else stored


def _physical(stored: np.ndarray[Any, Any], layout: Layout) -> np.ndarray[Any, Any]:
    if (layout.bitpix, layout.scale, layout.zero, layout.blank) == (64, 1.0, 2.0**63, None):
        # Unsigned numbers of 64 bits, of a mask say: a float would lose the lowest bits.
        return stored.astype(np.uint64) ^ np.uint64(2**63)
    values: np.ndarray[Any, Any] = stored.astype(np.float64)
    values = values * layout.scale + layout.zero
    if layout.blank is not None:
        values[stored == layout.blank] = np.nan
    return values


class FitsFile:
    """An open FITS file. path: where it came from, for astropy to open again."""

    def __init__(self, stored: Stored, path: str) -> None:
        self._stored, self._path = stored, path
        self._astropy: fits.HDUList | None = None
        self._handle: Any = None
        self._scan = scan(stored.fetch, stored.size)
        self._hdus: list[Hdu] = []
        self._fault: UnreadableError | None = None

    @property
    def size(self) -> int:
        """Bytes of the file, unpacked where it is a `.gz`."""
        return self._stored.size

    def image(self, selector: int | str | None) -> Image:
        """The unit of that index or EXTNAME; None: the first with a two-dimensional image."""
        key = selector.upper() if isinstance(selector, str) else selector
        for index, hdu in enumerate(self._units()):
            if key is None and hdu.shape is not None:
                return Image(self, hdu, index, hdu.shape)
            if key is None:
                continue
            if key != (hdu.name if isinstance(key, str) else index):
                continue
            if hdu.shape is None:
                raise UnreadableError(f"HDU {selector}: expected a two-dimensional image")
            return Image(self, hdu, index, hdu.shape)
        raise UnreadableError(f"HDU {selector}: none such" if selector is not None else "no image")

    def _units(self) -> Iterator[Hdu]:
        yield from self._hdus
        if self._fault is not None:
            raise self._fault
        try:
            for hdu in self._scan:
                self._hdus.append(hdu)
                yield hdu
        except UnreadableError as error:
            self._fault = error
            raise

    def array(self, offset: int, shape: tuple[int, int], dtype: str) -> np.ndarray[Any, Any]:
        """Values from `offset`. UnreadableError where the file is shorter."""
        if isinstance(self._stored, BytesFile):
            length = shape[0] * shape[1] * np.dtype(dtype).itemsize
            return np.frombuffer(self._stored.view(offset, length), dtype).reshape(shape)
        found = np.empty(shape, dtype)
        self._stored.read_into(offset, found)
        return found

    def decompress(self, index: int, start: int, stop: int) -> np.ndarray[Any, Any]:
        """Rows of a compressed image; astropy decodes only the tiles that they touch."""
        try:
            if self._astropy is None:
                self._handle = self._reopened()
                self._astropy = fits.open(self._handle, memmap=False, lazy_load_hdus=True)
            block = self._astropy[index].section[..., start:stop, :]
            return np.asarray(block).reshape(stop - start, -1)
        except Exception as error:  # astropy and its C code raise a dozen unrelated types
            raise_if_of_the_process(error)
            raise UnreadableError(f"{type(error).__name__}: {error}") from error

    def _reopened(self) -> Any:
        if isinstance(self._stored, BytesFile):
            return io.BytesIO(self._stored.fetch(0, self.size))
        if is_remote(self._path):
            fs, name = fsspec.core.url_to_fs(self._path)
            return fs.open(name, "rb")
        return Path(self._path).open("rb")

    def check_sums(self, hdu: Hdu) -> None:
        """UnreadableError where a unit does not fit its checksum cards; reads all of it where it
        has some."""
        datasum, checksum = hdu.value("DATASUM"), hdu.value("CHECKSUM")
        if datasum is None and checksum is None:
            return
        end = min(self.size, hdu.offset + -(-hdu.data_bytes // BLOCK) * BLOCK)
        header, data = (
            checksums.sum32(self._stored.fetch(*part) for part in checksums.steps(*span))
            for span in ((hdu.start, hdu.offset), (hdu.offset, end))
        )
        checksums.check(header, data, datasum, checksum)

    def check_unchanged(self) -> None:
        """UnreadableError where the file was written since it was opened."""
        self._stored.check_unchanged()

    def close(self) -> None:
        """Let the file go."""
        if self._astropy is not None:
            self._astropy.close()
        if self._handle is not None:
            self._handle.close()
        self._stored.close()


def _open(path: str, whole: bool) -> FitsFile:
    if path.endswith(".gz"):
        packed = read_whole(path)
        most = max(_MOST_UNPACKED_BYTES, _MOST_UNPACKED_TIMES * len(packed))
        return FitsFile(BytesFile(gunzip(packed, most)), path)
    stored = BytesFile(read_whole(path)) if whole else open_stored(path)
    if not stored.size:
        stored.close()
        raise UnreadableError("empty file")
    return FitsFile(stored, path)


@contextmanager
def _faults_told() -> Iterator[None]:
    """Every fault of a file but its absence becomes an UnreadableError; a fault of the process
    (no descriptor left) stays what it is."""
    try:
        yield
    except (FileNotFoundError, UnreadableError):
        raise
    except READ_ERRORS as error:
        if of_the_process(error):
            raise
        raise UnreadableError(f"{type(error).__name__}: {error}") from error


@contextmanager
def open_fits(path: str, whole: bool = False) -> Iterator[FitsFile]:
    """Open a local path or URL. whole: read it in one go, which suits small files.

    FileNotFoundError where it is missing; every other fault of the file, while the block runs,
    becomes an UnreadableError.
    """
    with _faults_told():
        file = _open(path, whole)
        try:
            yield file
        finally:
            file.close()


class OpenFiles:
    """Files that stay open from one use to the next, so that each is opened once. For one thread;
    as a context manager it closes all at the end."""

    def __init__(self) -> None:
        self._files: dict[str, FitsFile] = {}

    @contextmanager
    def use(self, path: str) -> Iterator[FitsFile]:
        """As `open_fits`, of a file that is open already where it was used before."""
        with _faults_told():
            if path not in self._files:
                self._files[path] = _open(path, whole=False)
            yield self._files[path]

    def close(self) -> None:
        """Close all files; the next use opens anew."""
        for file in self._files.values():
            file.close()
        self._files.clear()

    def __enter__(self) -> OpenFiles:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
