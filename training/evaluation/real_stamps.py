"""Real Pan-STARRS1 pixels that no model saw: galaxies, neighbours in their frames, known lenses.

Frames are read by `lenspipe.cutouts`, as production reads them, and cut about each source.
"""

from __future__ import annotations

import csv
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float32, Int64, UInt32

from lenspipe import cutouts
from lenspipe.contracts import Flag, InputSpec
from lenspipe.errors import InputError
from training.evaluation.measures import measure
from training.simulate.hosts.ps1 import name_of
from training.simulate.instrument import Instrument, load_instrument
from training.simulate.real import find_peaks, split_of

FOLDER = "ps1_lenses"
INSTRUMENT = "ps1"
BANDS = ("g", "r", "i", "z", "y")
# What stamps are measured and shown in, whatever bands a model takes.
MEASURED_BANDS = ("g", "r", "i")
FRAME_PIXELS = 120
PIXEL_SCALE_ARCSEC = 0.25
ZERO_POINT_MAG = 25.0
HOSTS = "unresolved_galaxy_lens"  # the group that training takes hosts from
_SHIFT_PIXELS = 2
# A neighbour nearer than this to the frame's own object shares its light.
_APART_PIXELS = 16
_FAINTEST_I_MAG = 21.0  # about where the survey's own cut on galaxies lies
# Half-light radius (arcsec) below which a source is a star at this seeing.
_POINT_LIKE = 0.95
GALAXY, EXTENDED, POINT = "galaxy", "neighbour, extended", "neighbour, point-like"


def check_instrument(simulate: Mapping[str, Any], field: str) -> None:
    """InputError where a recipe's `simulate` block is of pixels that there are no real ones of."""
    named = simulate.get("instrument", INSTRUMENT)
    if named != INSTRUMENT:
        expected = f"{INSTRUMENT}, the only survey whose real pixels models are judged on"
        raise InputError(f"{field}: simulate.instrument", expected, repr(named))


def instrument_for(inputs: Sequence[InputSpec]) -> Instrument:
    """Pan-STARRS1 with the bands that a model takes and those that stamps are measured in.

    InputError where the model takes what the frames have not.
    """
    for spec in inputs:
        _check_input(spec, BANDS, FRAME_PIXELS)
    taken = {band for spec in inputs for band in spec.bands}
    return load_instrument(INSTRUMENT, tuple(b for b in BANDS if b in {*MEASURED_BANDS, *taken}))


@dataclass(frozen=True)
class Frame:
    """One system's frame at zero point 25, with its row of the catalogue."""

    name: str
    row: dict[str, str]
    pixels: Float32[np.ndarray, "band y x"]
    flags: int

    @property
    def arc(self) -> str:
        """Whether a person sees an arc: clear, possible or no."""
        return self.row["arc_visible_by_eye"]

    @property
    def group(self) -> str:
        """What kind of system it is."""
        return self.row["group"]


@dataclass(frozen=True)
class Stamps:
    """Sources of real frames. kind: `GALAXY`, `EXTENDED`, `POINT` or what the catalogue says.

    frame: the name of the frame that each is from; sources of one frame are not independent.
    images: in `BANDS`, the source in pixel size // 2. view: 0 for that; more are the same source a
    little moved, turned and mirrored. measures: of `measures.measure`, of a source's first
    view.
    """

    images: Float32[np.ndarray, "n band y x"]
    frame: np.ndarray
    kind: np.ndarray
    view: Int64[np.ndarray, " n"]
    flags: UInt32[np.ndarray, " n"]
    measures: tuple[dict[str, float], ...]

    def __len__(self) -> int:
        return len(self.frame)

    def of(self, chosen: Bool[np.ndarray, " n"]) -> Stamps:
        """Some of them."""
        kept = tuple(m for m, use in zip(self.measures, chosen, strict=True) if use)
        return Stamps(
            self.images[chosen],
            self.frame[chosen],
            self.kind[chosen],
            self.view[chosen],
            self.flags[chosen],
            kept,
        )


def joined(parts: Sequence[Stamps]) -> Stamps:
    """Several sets as one."""
    return Stamps(
        np.concatenate([part.images for part in parts]),
        np.concatenate([part.frame for part in parts]),
        np.concatenate([part.kind for part in parts]),
        np.concatenate([part.view for part in parts]),
        np.concatenate([part.flags for part in parts]),
        tuple(measures for part in parts for measures in part.measures),
    )


def read_frames(data: Path) -> tuple[Frame, ...]:
    """Every frame that can be read. data: the folder that holds `ps1_lenses/`."""
    folder = data / FOLDER
    table = folder / "ps1_catalogue.csv"
    if not table.is_file():
        raise InputError("simulate.data", f"a folder with {FOLDER}/ps1_catalogue.csv", data)
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    options = cutouts.options_model("hdf5").model_validate(
        {
            "reader": "hdf5",
            "path": "ps1_fields_120px.h5",
            "bands": BANDS,
            "row": "catalogue_row",
            "pixel_scale_arcsec": PIXEL_SCALE_ARCSEC,
            "zero_point": {"exptime_column": "exptime_{band}"},
        }
    )
    spec = InputSpec("frame", BANDS, FRAME_PIXELS, PIXEL_SCALE_ARCSEC, ZERO_POINT_MAG)
    batch = cutouts.open_reader(options, str(folder)).read(_table(rows), [spec])
    return tuple(
        Frame(name_of(rows[at]), rows[at], pixels, int(flags))
        for at, pixels, flags in zip(batch.rows, batch.images["frame"], batch.flags, strict=True)
    )


def _table(rows: Sequence[dict[str, str]]) -> pa.Table:
    exposures = {f"exptime_{b}": [float(row[f"exptime_{b}"]) for row in rows] for b in BANDS}
    return pa.table(
        {
            "object_id": [row["folder"] for row in rows],
            **{c: [float(row[c] or "nan") for row in rows] for c in ("ra", "dec")},
            "catalogue_row": np.arange(len(rows)),
            **exposures,
        }
    )


def held_out(frames: Sequence[Frame], seen: Collection[str]) -> tuple[Frame, ...]:
    """Frames of the held-out side, and every lens whose arc shows.

    InputError where one of them is among `seen`: the model's own making took it.
    """
    kept = tuple(f for f in frames if f.arc != "no" or split_of(f.row["name"]) == "held_out")
    both = sorted({frame.name for frame in kept} & set(seen))
    if both:
        raise InputError("real pixels", "objects that the model's making never saw", both)
    return kept


def never_hosts(frames: Sequence[Frame], seen: Collection[str]) -> tuple[Frame, ...]:
    """Frames of either side whose own object training never takes as a host (quasars, supernovae,
    resolved lenses), and that `seen` does not name: their neighbours were not seen either."""
    return tuple(f for f in frames if f.group != HOSTS and f.name not in seen)


def cut(
    frame: Frame, at: tuple[int, int], size_pixels: int
) -> Float32[np.ndarray, "band y x"] | None:
    """A stamp with the source at `at` (x, y) in pixel size // 2; None where the frame ends."""
    left, top = (int(place) - size_pixels // 2 for place in at)
    inside = min(left, top) >= 0 and max(left, top) + size_pixels <= FRAME_PIXELS
    if not inside:
        return None
    return frame.pixels[:, top : top + size_pixels, left : left + size_pixels]


def views(
    frame: Frame, at: tuple[int, int], size_pixels: int, n: int
) -> list[Float32[np.ndarray, "band y x"]]:
    """Up to `n` stamps of one source; after the first it is moved by up to 2 pixels, turned and
    mirrored. None interpolates pixels. Drawn by name and place alone."""
    draw = np.random.default_rng([zlib.crc32(frame.name.encode()), *at])
    found = [cut(frame, at, size_pixels)]
    for _ in range(n - 1):
        dx, dy = draw.integers(-_SHIFT_PIXELS, _SHIFT_PIXELS + 1, 2)
        moved = cut(frame, (at[0] + int(dx), at[1] + int(dy)), size_pixels)
        turned = None if moved is None else np.rot90(moved, int(draw.integers(4)), (1, 2))
        mirrored = draw.random() < 0.5 and turned is not None
        found.append(turned[:, :, ::-1] if mirrored and turned is not None else turned)
    return [image for image in found if image is not None] if found[0] is not None else []


def centred(frames: Sequence[Frame], size_pixels: int, n: int = 1) -> Stamps:
    """The frames' own objects, as a survey's reader cuts them, in `n` views: the kind is the
    catalogue's group, `GALAXY` for galaxy lenses whose arcs nobody sees."""
    middle = (FRAME_PIXELS // 2, FRAME_PIXELS // 2)
    return _stamps([(f, middle, _kind(f)) for f in frames], size_pixels, n)


def neighbours(frames: Sequence[Frame], size_pixels: int, n: int = 1) -> Stamps:
    """Other sources of the frames down to i = 21 in `n` views, extended or point-like."""
    middle = FRAME_PIXELS // 2
    places = [
        (frame, (int(x), int(y)))
        for frame in frames
        for x, y in find_peaks(frame.pixels[BANDS.index("i")])
        if np.hypot(x - middle, y - middle) > _APART_PIXELS
    ]
    named = [(frame, at, _neighbour_kind(frame, at, size_pixels)) for frame, at in places]
    return _stamps([source for source in named if source[2]], size_pixels, n)


def _neighbour_kind(frame: Frame, at: tuple[int, int], size_pixels: int) -> str:
    """Empty for what is too faint or too near to the frame's end."""
    image = cut(frame, at, size_pixels)
    told = {} if image is None else measure_real(image)
    if not told.get("mag_i", np.inf) < _FAINTEST_I_MAG:
        return ""
    return POINT if told["r50_arcsec"] < _POINT_LIKE else EXTENDED


def _kind(frame: Frame) -> str:
    if frame.arc != "no":
        return f"arc {frame.arc}"
    return GALAXY if frame.group == HOSTS else frame.group


def _stamps(
    sources: Sequence[tuple[Frame, tuple[int, int], str]], size_pixels: int, n: int
) -> Stamps:
    lost = int(Flag.NAN_FILLED | Flag.MASKED)
    found = [
        (frame, kind, view, image)
        for frame, at, kind in sources
        for view, image in enumerate(views(frame, at, size_pixels, n))
    ]
    empty = np.zeros((0, len(BANDS), size_pixels, size_pixels), np.float32)
    return Stamps(
        np.stack([image for *_, image in found]) if found else empty,
        np.array([frame.name for frame, *_ in found], object),
        np.array([kind for _, kind, *_ in found], object),
        np.array([view for _, _, view, _ in found], np.int64),
        np.array([frame.flags & lost for frame, *_ in found], np.uint32),
        _first_measured([(view, image) for _, _, view, image in found]),
    )


def _first_measured(
    found: Sequence[tuple[int, Float32[np.ndarray, "band y x"]]],
) -> tuple[dict[str, float], ...]:
    measured: list[dict[str, float]] = []
    for view, image in found:
        measured.append(measure_real(image) if view == 0 else measured[-1])
    return tuple(measured)


def measure_real(image: Float32[np.ndarray, "band y x"]) -> dict[str, float]:
    """`measures.measure` of g r i of a real stamp."""
    blue = image[: len(MEASURED_BANDS)]
    return measure(blue, MEASURED_BANDS, PIXEL_SCALE_ARCSEC, ZERO_POINT_MAG)


def model_images(
    images: Float32[np.ndarray, "n band y x"], bands: Sequence[str], inputs: Sequence[InputSpec]
) -> dict[str, Float32[np.ndarray, "n band y x"]]:
    """Stamps as a model's inputs: bands by name, the middle of the stamp for a smaller one.

    InputError where an input is of another scale, zero point or size, or asks for other bands.
    """
    made = {}
    for spec in inputs:
        _check_input(spec, bands, images.shape[-1])
        start = images.shape[-1] // 2 - spec.size_pixels // 2
        rows = slice(start, start + spec.size_pixels)
        channels = [bands.index(band) for band in spec.bands]
        made[spec.name] = np.ascontiguousarray(images[:, channels, rows, rows], np.float32)
    return made


def _check_input(spec: InputSpec, bands: Sequence[str], pixels: int) -> None:
    scale = (spec.pixel_scale_arcsec, spec.zero_point_mag)
    if not set(spec.bands) <= set(bands) or scale != (PIXEL_SCALE_ARCSEC, ZERO_POINT_MAG):
        wanted = f"bands of {bands}, {PIXEL_SCALE_ARCSEC} arcsec, zero point {ZERO_POINT_MAG}"
        raise InputError(f"input {spec.name}", wanted, f"{spec.bands}, {scale}")
    if spec.size_pixels > pixels:
        raise InputError(f"input {spec.name}", f"at most {pixels} pixels", spec.size_pixels)
