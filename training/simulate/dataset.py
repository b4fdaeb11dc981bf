"""A training set of stamps by a recipe: the same file from a seed whatever the workers."""

from __future__ import annotations

import multiprocessing
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, field_validator

from lenspipe.errors import InputError
from lenspipe.problems import first_problem
from training.simulate import colours, contaminants, paint, priors
from training.simulate.lens import SourceStamp, Visible, draw_lens
from training.simulate.observe import (
    Conditions,
    Instrument,
    add_noise,
    add_points,
    convolve,
    draw_conditions,
    load_instrument,
    saturate,
    wide_psf,
)
from training.simulate.passband import Filters
from training.simulate.real import RealHost, Split, load_hosts, load_sources
from training.simulate.scene import Point, Scene, point_fluxes, render, render_onto

if TYPE_CHECKING:
    from jaxtyping import Float32

CHUNK_ROWS = 64
# Stars brighter than this show beyond the 4 arcsec that the common PSF image reaches.
_WINGS_MAG = 18.0
# Numbers that are known of an example; one HDF5 data set each, NaN where one has no meaning.
TRUTH = (
    "theta_e_arcsec",
    "z_lens",
    "z_source",
    "sigma_v_km_s",
    "gamma",
    "magnification",
    "half_light_radius_arcsec",
)
TRUTH_PER_BAND = ("mag", "arc_mag", "source_mag", "arc_snr", "psf_fwhm_arcsec", "sky_rms")

# Weights of the simulated negatives: red galaxies and what resembles arcs most are the most.
NEGATIVES = {
    "early_type": 3.0,
    "spiral": 3.0,
    "ring": 1.5,
    "merger": 1.5,
    "edge_on": 1.5,
    "group": 1.5,
    "companion": 2.5,
    "star": 0.7,
    "saturated_star": 0.3,
}


class SimulateRecipe(BaseModel):
    """The block `simulate` of a recipe: a training set and how it is mixed.

    n: examples; seed. lens_fraction: of all. negatives: kind -> weight among simulated negatives.
    painted_fraction: of lenses, arcs on real hosts; real_negative_fraction: of negatives, real
    stamps; both 0 in effect where `data` holds none. hosts: which side of the split the real ones
    come from, see `real.split_of`. minimum_arc_snr in snr_band and theta_e_arcsec:
    which lenses count, see `lens.Visible`. neighbours: mean number by chance in a simulated stamp.
    bad_pixel_fraction: stamps with masked columns or an edge, filled as the cutout readers do.
    max_shift_pixels: how far the object may lie from the stamp's centre.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    n: PositiveInt
    seed: int = Field(ge=0)
    instrument: str = "ps1"
    size_pixels: int = Field(default=48, ge=16, le=96)
    data: str | None = None
    hosts: Split = "training"
    lens_fraction: float = Field(default=0.5, ge=0.0, le=1.0)
    painted_fraction: float = Field(default=0.4, ge=0.0, le=1.0)
    real_negative_fraction: float = Field(default=0.2, ge=0.0, le=1.0)
    negatives: dict[str, float] = Field(default_factory=lambda: dict(NEGATIVES))
    minimum_arc_snr: float = Field(default=10.0, gt=0.0)
    snr_band: str = "g"
    theta_e_arcsec: tuple[float, float] = (0.6, 3.5)
    neighbours: float = Field(default=0.8, ge=0.0)
    bad_pixel_fraction: float = Field(default=0.04, ge=0.0, le=1.0)
    max_shift_pixels: int = Field(default=2, ge=0, le=8)

    @field_validator("negatives")
    @classmethod
    def _kinds(cls, value: dict[str, float]) -> dict[str, float]:
        unknown = sorted(set(value) - set(contaminants.CONTAMINANTS))
        if unknown:
            known = ", ".join(contaminants.CONTAMINANTS)
            raise ValueError(f"expected kinds out of {known}, found {', '.join(unknown)}")
        if any(weight < 0 for weight in value.values()) or sum(value.values()) <= 0:
            raise ValueError("expected weights of at least 0, one of them positive")
        return value


@dataclass(frozen=True)
class Example:
    """One row of the set. host: name of the real galaxy in it, or empty."""

    image: Float32[np.ndarray, "band y x"]
    label: int
    kind: str
    host: str = ""
    truth: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Generator:
    """A recipe with all that it needs at hand; `example` depends on recipe and index alone."""

    recipe: SimulateRecipe
    instrument: Instrument
    hosts: tuple[RealHost, ...]
    sources: tuple[SourceStamp, ...]

    @classmethod
    def of(cls, recipe: SimulateRecipe) -> Generator:
        """Load the instrument and the real hosts. InputError: no such instrument or band."""
        instrument = load_instrument(recipe.instrument)
        if recipe.snr_band not in instrument.bands:
            raise InputError("snr_band", f"one of {instrument.bands}", repr(recipe.snr_band))
        data = Path(recipe.data) if recipe.data else None
        return cls(
            recipe, instrument, load_hosts(data, instrument, recipe.hosts), load_sources(data)
        )

    @property
    def visible(self) -> Visible:
        """Which arcs the recipe asks for."""
        recipe = self.recipe
        return Visible(recipe.minimum_arc_snr, recipe.snr_band, recipe.theta_e_arcsec)

    def example(self, index: int) -> Example:
        """Example `index` of the set."""
        rng = np.random.default_rng(np.random.SeedSequence(self.recipe.seed, spawn_key=(index,)))
        is_lens = rng.random() < self.recipe.lens_fraction
        made = self._lens(rng) if is_lens else self._negative(rng)
        if rng.random() < self.recipe.bad_pixel_fraction:
            spoil(rng, made.image)
        return made

    def _lens(self, rng: np.random.Generator) -> Example:
        if self.hosts and rng.random() < self.recipe.painted_fraction:
            painted = self._painted(rng)
            if painted is not None:
                return painted
        seen = draw_conditions(rng, self.instrument)
        centre = self._centre(rng)
        scene, light = draw_lens(
            rng,
            self.instrument,
            seen,
            visible=self.visible,
            size_pixels=self.recipe.size_pixels,
            centre=centre,
            stamps=self.sources,
        )
        return self._observed(rng, scene, light, seen)

    def _painted(self, rng: np.random.Generator) -> Example | None:
        host = self.hosts[rng.integers(len(self.hosts))]
        made = paint.painted_lens(
            rng,
            host,
            self.instrument,
            visible=self.visible,
            size_pixels=self.recipe.size_pixels,
            max_shift_pixels=self.recipe.max_shift_pixels,
            stamps=self.sources,
        )
        if made is None:
            return None
        image, arcs, seen = made
        light = {band: arcs.truth[f"arc_mag_{band}"] for band in self.instrument.bands}
        total = priors.combined([host.magnitudes, light])
        truth = {**self._seen(seen), **_magnitude_truth(total, host.radius_arcsec), **arcs.truth}
        return Example(image, 1, "painted_lens", host.name, truth)

    def _negative(self, rng: np.random.Generator) -> Example:
        if self.hosts and rng.random() < self.recipe.real_negative_fraction:
            return self._real_negative(rng)
        kinds = list(self.recipe.negatives)
        weights = np.array([self.recipe.negatives[kind] for kind in kinds])
        kind = kinds[int(rng.choice(len(kinds), p=weights / weights.sum()))]
        seen = draw_conditions(rng, self.instrument)
        scene = contaminants.draw(rng, kind, self.instrument)
        return self._observed(rng, scene, self._light(rng, scene, seen), seen)

    def _real_negative(self, rng: np.random.Generator) -> Example:
        host = self.hosts[rng.integers(len(self.hosts))]
        image, other = paint.real_negative(
            rng, host, self.recipe.size_pixels, self.recipe.max_shift_pixels
        )
        if other:
            return Example(image, 0, "real_neighbour", host.name)
        truth = {**_magnitude_truth(host.magnitudes, host.radius_arcsec), "z_lens": host.redshift}
        return Example(image, 0, "real_galaxy", host.name, truth)

    def _centre(self, rng: np.random.Generator) -> tuple[float, float]:
        # Cutout readers, and `paint.crop`, put the source in this pixel: for an even size half a
        # pixel past the array's middle.
        middle = self.recipe.size_pixels // 2
        reach = self.recipe.max_shift_pixels + 0.5
        x, y = middle + rng.uniform(-reach, reach, size=2)
        return float(x), float(y)

    def _light(
        self, rng: np.random.Generator, scene: Scene, seen: Conditions
    ) -> Float32[np.ndarray, "band y x"]:
        centre = self._centre(rng)
        step, zero = self.instrument.pixel_scale_arcsec, self.instrument.zero_point_mag
        bands = self.instrument.bands
        sharp = render(scene, bands, self.recipe.size_pixels, step, zero, centre=centre)
        light = convolve(sharp, seen.psf) if scene.components else sharp
        points = point_fluxes(scene, bands, step, zero, centre)
        add_points(light, self._point_psf(scene, seen), points)
        return light

    def _point_psf(self, scene: Scene, seen: Conditions) -> Float32[np.ndarray, "band y x"]:
        """The PSF out to where a star's wings sink in the noise."""
        if min(scene.magnitudes.values()) > _WINGS_MAG:
            return seen.psf
        return wide_psf(self.instrument, seen, 2 * self.recipe.size_pixels + 1)

    def _observed(
        self,
        rng: np.random.Generator,
        scene: Scene,
        light: Float32[np.ndarray, "band y x"],
        seen: Conditions,
    ) -> Example:
        full = light + self._neighbours(rng, seen)
        if scene.kind == "saturated_star":
            full = saturate(full, self.instrument.saturation_flux)
        image = add_noise(rng, full, self.instrument, seen)
        truth = {
            **self._seen(seen),
            **_magnitude_truth(scene.magnitudes, scene.half_light_radius_arcsec),
            **scene.truth,
        }
        return Example(image, int(scene.kind == "lens"), scene.kind, "", truth)

    def _neighbours(
        self, rng: np.random.Generator, seen: Conditions
    ) -> Float32[np.ndarray, "band y x"]:
        """Chance neighbours, no nearer than 3 arcsec, convolved."""
        size, bands = self.recipe.size_pixels, self.instrument.bands
        step, zero = self.instrument.pixel_scale_arcsec, self.instrument.zero_point_mag
        sharp = np.zeros((len(bands), size, size), dtype=np.float32)
        points = []
        count = rng.poisson(self.recipe.neighbours)
        for _ in range(count):
            centre = self._beside(rng)
            scene = _neighbour(rng, self.instrument.filters)
            points.extend(point_fluxes(scene, bands, step, zero, centre))
            if scene.components:
                render_onto(
                    sharp, scene, bands, centre, pixel_scale_arcsec=step, zero_point_mag=zero
                )
        light = convolve(sharp, seen.psf) if count > len(points) else sharp
        add_points(light, seen.psf, points)
        return light

    def _beside(self, rng: np.random.Generator) -> tuple[float, float]:
        middle = self.recipe.size_pixels // 2
        nearest = 3.0 / self.instrument.pixel_scale_arcsec
        while True:
            x, y = rng.uniform(-2.0, self.recipe.size_pixels + 1.0, size=2)
            if np.hypot(x - middle, y - middle) > nearest:
                return float(x), float(y)

    def _seen(self, seen: Conditions) -> dict[str, float]:
        return {
            f"{name}_{band}": float(values[k])
            for name, values in (("psf_fwhm_arcsec", seen.fwhm_arcsec), ("sky_rms", seen.sky_rms))
            for k, band in enumerate(self.instrument.bands)
        }


def _magnitude_truth(magnitudes: Mapping[str, float], radius_arcsec: float) -> dict[str, float]:
    found = {f"mag_{band}": value for band, value in magnitudes.items()}
    return {**found, "half_light_radius_arcsec": radius_arcsec}


def _neighbour(rng: np.random.Generator, filters: Filters) -> Scene:
    """A faint galaxy or star, as number counts have them."""
    i_mag = priors.counts(rng, 17.5, 23.0, slope=0.3)
    if rng.random() < 0.3:
        light = priors.magnitudes(i_mag, colours.draw(rng, "star", 0.0, filters))
        return Scene("star", (), light, points=(Point(0.0, 0.0, light),))
    red = rng.random() < 0.3
    z = float(rng.uniform(0.1, 0.6))
    light = priors.magnitudes(i_mag, colours.draw(rng, "passive" if red else "disc", z, filters))
    radius = float(np.clip(10.0 ** (-0.1 * (i_mag - 19.5) + rng.normal(0, 0.15)), 0.15, 3.0))
    index = float(rng.uniform(2.5, 4.5) if red else rng.uniform(0.7, 1.5))
    part = priors.sersic(light, radius, index, priors.ellipticity(rng, 0.3, 1.0))
    return Scene("neighbour", (part,), light, radius, i_mag)


def spoil(rng: np.random.Generator, image: Float32[np.ndarray, "band y x"]) -> None:
    """Lose some pixels in place, as survey stamps do, filled with the band's median.

    Masked columns or rows in one band or all, or an edge of the survey in all.
    """
    size = image.shape[-1]
    lost = np.zeros(image.shape, dtype=bool)
    bands = slice(None) if rng.random() < 0.4 else int(rng.integers(len(image)))
    start = int(rng.integers(size))
    if rng.random() < 0.7:
        lost[bands, :, start : start + int(rng.integers(1, 5))] = True
    else:
        start = int(rng.integers(1, size // 5))
        lost[:, :, :start] = True
    if rng.random() < 0.5:
        lost = lost.swapaxes(1, 2)
    if rng.random() < 0.5:
        lost = lost[:, ::-1, ::-1]
    for band, gone in zip(image, lost, strict=True):
        band[gone] = np.median(band[~gone])


def truth_columns(instrument: Instrument) -> list[str]:
    """Names of the truth data sets."""
    return [*TRUTH, *(f"{name}_{band}" for name in TRUTH_PER_BAND for band in instrument.bands)]


@dataclass(frozen=True)
class _Rows:
    """A run of examples as arrays."""

    start: int
    images: Float32[np.ndarray, "n band y x"]
    columns: dict[str, Any]


_worker: Generator | None = None


def _start_worker(recipe: SimulateRecipe) -> None:
    global _worker  # noqa: PLW0603 - a process pool's initialiser can hand on state in no other way
    _worker = Generator.of(recipe)


def _rows(generator: Generator, start: int) -> _Rows:
    stop = min(start + CHUNK_ROWS, generator.recipe.n)
    made = [generator.example(index) for index in range(start, stop)]
    columns: dict[str, Any] = {
        "label": np.array([e.label for e in made], dtype=np.uint8),
        "kind": [e.kind for e in made],
        "host": [e.host for e in made],
        "object_id": np.arange(start, stop, dtype=np.int64),
    }
    for name in truth_columns(generator.instrument):
        values = [e.truth.get(name, np.nan) for e in made]
        columns[f"truth/{name}"] = np.array(values, dtype=np.float32)
    return _Rows(start, np.stack([e.image for e in made]), columns)


def _rows_in_worker(start: int) -> _Rows:
    if _worker is None:
        raise RuntimeError("worker was not started with a recipe")
    return _rows(_worker, start)


def _all_rows(generator: Generator, workers: int) -> Iterator[_Rows]:
    starts = range(0, generator.recipe.n, CHUNK_ROWS)
    if workers <= 1:
        yield from (_rows(generator, start) for start in starts)
        return
    with ProcessPoolExecutor(
        workers,
        # Neither threads of numerical libraries nor open files are carried into the workers.
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start_worker,
        initargs=(generator.recipe,),
    ) as pool:
        yield from pool.map(_rows_in_worker, starts)


def _create(file: h5py.File, generator: Generator) -> None:
    recipe, instrument = generator.recipe, generator.instrument
    n, size, bands = recipe.n, recipe.size_pixels, len(instrument.bands)
    chunk = min(CHUNK_ROWS, n)
    file.create_dataset("images", (n, bands, size, size), "f4", chunks=(chunk, bands, size, size))
    file.create_dataset("label", (n,), "u1")
    file.create_dataset("object_id", (n,), "i8")
    for name in ("kind", "host"):
        file.create_dataset(name, (n,), h5py.string_dtype())
    for name in truth_columns(instrument):
        file.create_dataset(f"truth/{name}", (n,), "f4")
    file.attrs["bands"] = list(instrument.bands)
    file.attrs["pixel_scale_arcsec"] = instrument.pixel_scale_arcsec
    file.attrs["zero_point_mag"] = instrument.zero_point_mag
    file.attrs["recipe"] = yaml.safe_dump(recipe.model_dump(exclude={"data"}), sort_keys=True)
    file.attrs["seed"] = recipe.seed
    file.attrs["real_hosts"] = len(generator.hosts)
    file.attrs["real_sources"] = len(generator.sources)


def make_dataset(recipe: SimulateRecipe, out: Path, workers: int = 1) -> None:
    """Write the set as HDF5: images (n, band, y, x) float32 flux, label, kind, host, object_id,
    truth/*. The file appears under its name only when it is whole."""
    generator = Generator.of(recipe)
    out.parent.mkdir(parents=True, exist_ok=True)
    aside = out.with_name(out.name + ".partial")
    began = time.monotonic()
    with h5py.File(aside, "w") as file:
        _create(file, generator)
        for rows in _all_rows(generator, workers):
            place = slice(rows.start, rows.start + len(rows.images))
            file["images"][place] = rows.images
            for name, values in rows.columns.items():
                file[name][place] = values
            _progress(place.stop, recipe.n, time.monotonic() - began)
    aside.replace(out)


def _progress(done: int, total: int, seconds: float) -> None:
    end = "\n" if done == total else "\r"
    rate = done / max(seconds, 1e-9)
    sys.stderr.write(f"simulate: {done}/{total} stamps, {rate:.0f}/s{end}")
    sys.stderr.flush()


def parse_recipe(block: Mapping[str, Any]) -> SimulateRecipe:
    """The block `simulate` of a recipe file. InputError names the key that is wrong."""
    try:
        return SimulateRecipe.model_validate(dict(block))
    except ValidationError as error:
        raise first_problem(error, "simulate") from error


def simulate(recipe_block: Mapping[str, Any], out: Path, workers: int) -> None:
    """`python -m training simulate`: the block `simulate` of a recipe into an HDF5 file."""
    make_dataset(parse_recipe(recipe_block), out, workers)
