"""A training set of stamps by a recipe: example k depends on the recipe and k alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)

from lenspipe.errors import InputError
from lenspipe.problems import first_problem
from training.simulate import colours, contaminants, defects, paint, priors
from training.simulate.aim import Aim, Brightness, ThetaE, draw_aim
from training.simulate.hosts import degraded_hosts, load_hosts
from training.simulate.instrument import Instrument, load_grids
from training.simulate.lens import NoSuchLensError, Visible, draw_lens
from training.simulate.observe import (
    Conditions,
    draw_conditions,
    typical_conditions,
)
from training.simulate.parts import Rows
from training.simulate.passband import Filters
from training.simulate.real import RealHost, Split, data_folder, load_sources
from training.simulate.real_colours import load_colours
from training.simulate.scene import Lens, Point, Scene
from training.simulate.source import SourceStamp
from training.simulate.views import LARGEST_PIXELS, SMALLEST_PIXELS, Placed, View, views_of

if TYPE_CHECKING:
    from jaxtyping import Float32

CHUNK_ROWS = 64
# Chance neighbours: stars among them, and red ones among the galaxies, for red galaxies live in
# groups. With these and the default `neighbours`, stamps have as many bright pixels beside their
# source as real ones, in g and in i (`python -m benchmarks.mock_statistics`).
_NEIGHBOUR_STARS, _NEIGHBOUR_RED = 0.2, 0.55
# Numbers that are known of an example; one HDF5 data set each, NaN where one has no meaning.
TRUTH = (
    "theta_e_arcsec",
    "z_lens",
    "z_source",
    "sigma_v_km_s",
    "gamma",
    "lens_e1",
    "lens_e2",
    "shear_1",
    "shear_2",
    "source_x_arcsec",
    "source_y_arcsec",
    "n_images",
    "magnification",
    "arc_area_arcsec2",
    "arc_area_2sigma_fraction",
    "half_light_radius_arcsec",
    "centre_x_pixels",
    "centre_y_pixels",
)
TRUTH_PER_BAND = (
    "mag",
    "arc_mag",
    "source_mag",
    "arc_snr",
    "source_lens_contrast",
    "psf_fwhm_arcsec",
    "sky_rms",
)

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
    "star_pair": 0.4,
    "quasar_pair": 0.4,
    "saturated_star": 0.3,
    "satellite_trail": 0.2,
    "cosmic_ray": 0.2,
    "bleeding_column": 0.2,
    "masked_pixels": 0.2,
}

# Fraction of all stamps, lenses as well, that each defect falls on by chance.
DEFECTS = {
    "masked_pixels": 0.04,
    "cosmic_ray": 0.01,
    "satellite_trail": 0.005,
    "bleeding_column": 0.005,
}
# What a negative that is a defect shows besides it: what a lens would be without arcs.
_BEHIND_DEFECTS = "early_type"
# Aims that are drawn for one lens until one can be met, and hosts that are tried for each.
_AIMS, _HOSTS_PER_AIM, _PAINTED_HOSTS = 40, 40, 6


class SimulateRecipe(BaseModel):
    """The block `simulate` of a recipe: a training set and how it is mixed.

    n: examples; seed. bands: of the instrument, None for its default; size_arcsec: of the stamp,
    goes before size_pixels and is needed where an instrument has several pixel grids. content:
    stamps, or noiseless convolved arcs alone, all of them simulated lenses with the deflector in
    the middle of pixel size_pixels // 2, to be laid on images later.
    lens_fraction: of all. negatives: kind -> weight among simulated negatives, kinds of
    `contaminants` and of `defects` (the defect on a red galaxy).
    painted_fraction: of lenses, arcs on real hosts; real_negative_fraction: of negatives, real
    stamps; both 0 in effect without `data`. hosts: which side of the split real galaxies come from,
    sources too, see `real.split_of`. also_hosts_of: deeper instruments whose real galaxies are
    taken as well, degraded to this one's. source_colours: of sources that are real galaxies, from
    spectra or drawn from those of real faint galaxies. minimum_arc_snr in snr_band: arcs fainter
    than this are none; where nobody names a band and the first grid has no g, it is that grid's
    first. theta_e, brightness: see `aim`; quad_fraction: of lenses, those with four
    images or more; gamma: slope of all lenses, 2 for isothermal ones; both natural by default.
    neighbours: mean number by chance in a simulated stamp. defects: kind -> fraction of all stamps
    that it falls on. max_shift_pixels: how far the object may lie from the stamp's centre.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    n: PositiveInt
    seed: int = Field(ge=0)
    content: Literal["stamps", "arcs"] = "stamps"
    instrument: str = "ps1"
    bands: tuple[str, ...] | None = None
    size_pixels: int = Field(default=48, ge=SMALLEST_PIXELS, le=LARGEST_PIXELS)
    size_arcsec: PositiveFloat | None = None
    data: str | None = None
    hosts: Split = "training"
    also_hosts_of: tuple[str, ...] = ()
    source_colours: Literal["sed", "real"] = "sed"
    lens_fraction: float = Field(default=0.5, ge=0.0, le=1.0)
    painted_fraction: float = Field(default=0.4, ge=0.0, le=1.0)
    real_negative_fraction: float = Field(default=0.2, ge=0.0, le=1.0)
    negatives: dict[str, float] = Field(default_factory=lambda: dict(NEGATIVES))
    minimum_arc_snr: float = Field(default=10.0, gt=0.0)
    snr_band: str = "g"
    theta_e: ThetaE = ThetaE()
    brightness: Brightness = Brightness()
    quad_fraction: float | None = Field(default=None, ge=0.0, le=1.0)
    gamma: float | None = Field(default=None, gt=1.2, lt=2.8)
    neighbours: float = Field(default=1.6, ge=0.0)
    defects: dict[str, float] = Field(default_factory=lambda: dict(DEFECTS))
    max_shift_pixels: int = Field(default=2, ge=0, le=8)

    @field_validator("negatives")
    @classmethod
    def _kinds(cls, value: dict[str, float]) -> dict[str, float]:
        _check_kinds(value, [*contaminants.names(), *defects.names()])
        if any(weight < 0 for weight in value.values()) or sum(value.values()) <= 0:
            raise ValueError("expected weights of at least 0, one of them positive")
        return value

    @field_validator("defects")
    @classmethod
    def _defects(cls, value: dict[str, float]) -> dict[str, float]:
        _check_kinds(value, defects.names())
        if any(not 0 <= fraction <= 1 for fraction in value.values()):
            raise ValueError("expected fractions from 0 to 1")
        return value

    @model_validator(mode="after")
    def _bright_enough(self) -> SimulateRecipe:
        asked = self.brightness
        if asked.of == "arc_snr" and asked.low is not None and asked.low < self.minimum_arc_snr:
            raise ValueError(
                f"expected brightness.low of at least minimum_arc_snr {self.minimum_arc_snr}, "
                f"found {asked.low}"
            )
        return self


def _check_kinds(given: Mapping[str, float], known: list[str]) -> None:
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise ValueError(f"expected kinds out of {', '.join(known)}, found {', '.join(unknown)}")


@dataclass(frozen=True)
class Example:
    """One row of the set. host, source: names of the real galaxies in it, before and behind the
    lens, or empty; arcs: of a lens, the noiseless lensed light in it; more_images: data set name ->
    the same on another grid."""

    image: Float32[np.ndarray, "band y x"]
    label: int
    kind: str
    host: str = ""
    source: str = ""
    truth: Mapping[str, float] = field(default_factory=dict)
    arcs: Float32[np.ndarray, "band y x"] | None = None
    more_images: Mapping[str, Float32[np.ndarray, "band y x"]] = field(default_factory=dict)


@dataclass(frozen=True)
class Generator:
    """A recipe with all that it needs at hand; `example` depends on recipe and index alone.

    views: the instrument's grids; scenes are drawn, and made visible, on the first.
    """

    recipe: SimulateRecipe
    views: tuple[View, ...]
    hosts: tuple[RealHost, ...]
    sources: tuple[SourceStamp, ...]

    @classmethod
    def of(cls, recipe: SimulateRecipe) -> Generator:
        """Load the instrument and real galaxies. InputError: no such instrument or band; real data
        that is named, and is not there or lacks what the recipe takes of it."""
        data = data_folder(recipe.data)
        grids = load_grids(recipe.instrument, recipe.bands)
        loaded = {name: grid.with_psf_images(data) for name, grid in grids.items()}
        views = views_of(loaded, recipe.size_pixels, recipe.size_arcsec)
        instrument = views[0].instrument
        band = _snr_band(recipe, instrument)
        recipe = recipe.model_copy(update={"size_pixels": views[0].size_pixels, "snr_band": band})
        if recipe.content == "arcs" and len(views) > 1:
            raise InputError("content", "stamps with an instrument of several grids", "'arcs'")
        least = recipe.size_pixels + 2 * recipe.max_shift_pixels
        hosts = load_hosts(data, instrument, recipe.hosts, least)
        for other in recipe.also_hosts_of:
            hosts += degraded_hosts(data, other, instrument, recipe.hosts, least)
        if data is not None:
            _check_hosts(recipe, hosts, least)
        return cls(recipe, views, hosts, _sources(data, recipe))

    @property
    def instrument(self) -> Instrument:
        """The first grid."""
        return self.views[0].instrument

    @property
    def visible(self) -> Visible:
        """Which arcs the recipe asks for."""
        recipe = self.recipe
        radii = (recipe.theta_e.low, recipe.theta_e.high)
        return Visible(recipe.minimum_arc_snr, recipe.snr_band, radii)

    def example(self, index: int) -> Example:
        """Example `index` of the set."""
        rng = np.random.default_rng(np.random.SeedSequence(self.recipe.seed, spawn_key=(index,)))
        is_lens = rng.random() < self.recipe.lens_fraction or self.recipe.content == "arcs"
        made = self._lens(rng) if is_lens else self._negative(rng)
        for kind, fraction in self.recipe.defects.items():
            if rng.random() < fraction:
                self._spoil(rng, kind, made)
        return made

    def _spoil(self, rng: np.random.Generator, kind: str, made: Example) -> None:
        """A defect on one of the grids, by its share of the bands."""
        view = self.views[0]
        if len(self.views) > 1:
            shares = np.array([len(view.instrument.bands) for view in self.views])
            view = self.views[int(rng.choice(len(self.views), p=shares / shares.sum()))]
        image = made.more_images.get(view.dataset, made.image)
        defects.apply(rng, kind, image, typical_conditions(view.instrument))

    def _lens(self, rng: np.random.Generator) -> Example:
        # Of arcs alone no host is kept, and they lie about one and the same pixel.
        may_paint = bool(self.hosts) and self.recipe.content == "stamps"
        painted = may_paint and rng.random() < self.recipe.painted_fraction
        for _ in range(_AIMS):
            aim = self._aim(rng)
            made = self._painted(rng, aim) if painted else None
            made = made or self._simulated(rng, aim)
            if made is not None:
                return made
        wanted = f"lenses of which one in {_AIMS} can be made on stamps of this size and depth"
        raise NoSuchLensError("simulate", wanted, f"none, the last as {aim}, {self.visible}")

    def _aim(self, rng: np.random.Generator) -> Aim:
        recipe = self.recipe
        return draw_aim(rng, recipe.theta_e, recipe.brightness, recipe.quad_fraction, recipe.gamma)

    def _simulated(self, rng: np.random.Generator, aim: Aim) -> Example | None:
        seen = draw_conditions(rng, self.instrument)
        centre = self._centre(rng)
        try:
            scene, light, arcs = draw_lens(
                rng,
                self.instrument,
                seen,
                visible=self.visible,
                size_pixels=self.recipe.size_pixels,
                centre=centre,
                stamps=self.sources,
                aim=aim,
                hosts=_HOSTS_PER_AIM,
            )
        except NoSuchLensError:
            return None
        observed = self._observed(rng, scene, light, seen, centre)
        return replace(observed, arcs=arcs, source=_real_source(scene.lens))

    def _painted(self, rng: np.random.Generator, aim: Aim) -> Example | None:
        """None where none of some hosts, or of all where the aim is nature's, can be that lens."""
        for _ in range(_PAINTED_HOSTS):
            host = self.hosts[rng.integers(len(self.hosts))]
            made = paint.painted_lens(
                rng,
                host,
                self.instrument,
                visible=self.visible,
                size_pixels=self.recipe.size_pixels,
                max_shift_pixels=self.recipe.max_shift_pixels,
                stamps=self.sources,
                aim=aim,
            )
            if made is not None:
                return self._painted_example(host, made)
        return None

    def _painted_example(self, host: RealHost, made: paint.Painted) -> Example:
        arcs = made.arcs
        light = {band: arcs.truth[f"arc_mag_{band}"] for band in self.instrument.bands}
        total = priors.combined([host.magnitudes, light])
        truth = {
            **self.views[0].conditions_truth(made.seen),
            **_magnitude_truth(total, host.radius_arcsec),
            **_centre_truth(made.centre),
            **arcs.truth,
        }
        source = _real_source(arcs.lens)
        return Example(made.image, 1, "painted_lens", host.name, source, truth, arcs.blurred)

    def _negative(self, rng: np.random.Generator) -> Example:
        if self.hosts and rng.random() < self.recipe.real_negative_fraction:
            return self._real_negative(rng)
        kinds = list(self.recipe.negatives)
        weights = np.array([self.recipe.negatives[kind] for kind in kinds])
        kind = kinds[int(rng.choice(len(kinds), p=weights / weights.sum()))]
        seen = draw_conditions(rng, self.instrument)
        spoilt = kind in defects.names()
        scene = contaminants.draw(rng, _BEHIND_DEFECTS if spoilt else kind, self.instrument)
        centre = self._centre(rng)
        light = self.views[0].light(scene, seen, centre)
        made = self._observed(rng, scene, light, seen, centre)
        if spoilt:
            defects.apply(rng, kind, made.image, seen)
        return replace(made, kind=kind)

    def _real_negative(self, rng: np.random.Generator) -> Example:
        host = self.hosts[rng.integers(len(self.hosts))]
        image, other = paint.real_negative(
            rng, host, self.recipe.size_pixels, self.recipe.max_shift_pixels
        )
        if other:
            return Example(image, 0, "real_neighbour", host.name)
        truth = {**_magnitude_truth(host.magnitudes, host.radius_arcsec), "z_lens": host.redshift}
        return Example(image, 0, "real_galaxy", host.name, truth=truth)

    def _centre(self, rng: np.random.Generator) -> tuple[float, float]:
        # Cutout readers, and `paint.crop`, put the source in this pixel: for an even size half a
        # pixel past the array's middle.
        middle = self.recipe.size_pixels // 2
        if self.recipe.content == "arcs":  # `training.merging` puts this very pixel on the host
            return float(middle), float(middle)
        reach = self.recipe.max_shift_pixels + 0.5
        x, y = middle + rng.uniform(-reach, reach, size=2)
        return float(x), float(y)

    def _observed(
        self,
        rng: np.random.Generator,
        scene: Scene,
        light: Float32[np.ndarray, "band y x"],
        seen: Conditions,
        centre: tuple[float, float],
    ) -> Example:
        main, *more = self.views
        others = self._neighbours(rng)
        image = main.observed(rng, scene, light + main.neighbours(others, seen), seen)
        looks = {view.dataset: view.look(rng, main, Placed(scene, centre), others) for view in more}
        truth = {
            **main.conditions_truth(seen),
            **_magnitude_truth(scene.magnitudes, scene.half_light_radius_arcsec),
            **_centre_truth(centre),
            **scene.truth,
        }
        for look in looks.values():
            truth |= look.truth
        more_images = {name: look.image for name, look in looks.items()}
        is_lens = int(scene.kind == "lens")
        return Example(image, is_lens, scene.kind, truth=truth, more_images=more_images)

    def _neighbours(self, rng: np.random.Generator) -> list[Placed]:
        """Chance neighbours, no nearer than 3 arcsec."""
        placed = []
        for _ in range(rng.poisson(self.recipe.neighbours)):
            centre = self._beside(rng)
            placed.append(Placed(_neighbour(rng, self.instrument.filters), centre))
        return placed

    def _beside(self, rng: np.random.Generator) -> tuple[float, float]:
        size, middle = self.recipe.size_pixels, self.recipe.size_pixels // 2
        nearest = 3.0 / self.instrument.pixel_scale_arcsec
        # From a square that reaches beyond the stamp, and beyond `nearest` of a small one.
        reach = max(0.5 * size + 1.5, nearest + 1.0)
        low, high = 0.5 * (size - 1) - reach, 0.5 * (size - 1) + reach
        while True:
            x, y = rng.uniform(low, high, size=2)
            if np.hypot(x - middle, y - middle) > nearest:
                return float(x), float(y)


def _magnitude_truth(magnitudes: Mapping[str, float], radius_arcsec: float) -> dict[str, float]:
    found = {f"mag_{band}": value for band, value in magnitudes.items()}
    return {**found, "half_light_radius_arcsec": radius_arcsec}


def _centre_truth(centre: tuple[float, float]) -> dict[str, float]:
    return {"centre_x_pixels": centre[0], "centre_y_pixels": centre[1]}


def _neighbour(rng: np.random.Generator, filters: Filters) -> Scene:
    """A faint galaxy or star, as number counts have them."""
    i_mag = priors.counts(rng, 17.5, 23.0, slope=0.3)
    if rng.random() < _NEIGHBOUR_STARS:
        light = priors.magnitudes(i_mag, colours.draw(rng, "star", 0.0, filters))
        return Scene("star", (), light, points=(Point(0.0, 0.0, light),))
    red = rng.random() < _NEIGHBOUR_RED
    z = float(rng.uniform(0.1, 0.6))
    light = priors.magnitudes(i_mag, colours.draw(rng, "passive" if red else "disc", z, filters))
    radius = float(np.clip(10.0 ** (-0.1 * (i_mag - 19.5) + rng.normal(0, 0.15)), 0.15, 3.0))
    index = float(rng.uniform(2.5, 4.5) if red else rng.uniform(0.7, 1.5))
    part = priors.sersic(light, radius, index, priors.ellipticity(rng, 0.3, 1.0))
    return Scene("neighbour", (part,), light, radius, i_mag)


def _real_source(lens: Lens | None) -> str:
    """Name of the real galaxy that a lens's source is; empty where it is none."""
    return "".join(part.name for part in lens.source) if lens else ""


def kinds_of(recipe: SimulateRecipe) -> tuple[set[str], set[str]]:
    """Kinds of lenses, and kinds of others, that a set may hold."""
    real, lenses, others = bool(recipe.data), set[str](), set[str]()
    if recipe.lens_fraction > 0:
        lenses |= {"lens", *(["painted_lens"] if real and recipe.painted_fraction > 0 else [])}
    if recipe.lens_fraction < 1:
        others |= {kind for kind, weight in recipe.negatives.items() if weight > 0}
        if real and recipe.real_negative_fraction > 0:
            others |= {"real_galaxy", "real_neighbour"}
    return lenses, others


def _snr_band(recipe: SimulateRecipe, instrument: Instrument) -> str:
    """The band that arcs must stand out in. InputError: one that is named and is not there."""
    if recipe.snr_band in instrument.bands:
        return recipe.snr_band
    if "snr_band" in recipe.model_fields_set:
        raise InputError("snr_band", f"one of {instrument.bands}", repr(recipe.snr_band))
    return instrument.bands[0]


def _check_hosts(recipe: SimulateRecipe, hosts: Sequence[RealHost], pixels: int) -> None:
    """InputError where real galaxies are asked for and none is there."""
    if hosts or recipe.content == "arcs":
        return
    for key, among in (
        ("painted_fraction", recipe.lens_fraction),
        ("real_negative_fraction", 1.0 - recipe.lens_fraction),
    ):
        if among > 0 and (share := getattr(recipe, key)) > 0:
            names = ", ".join((recipe.instrument, *recipe.also_hosts_of))
            expected = f"0, or {recipe.hosts} galaxies of {names} with frames of {pixels} pixels"
            raise InputError(f"simulate.{key}", expected, f"{share} and none in {recipe.data}")


def _sources(data: Path | None, recipe: SimulateRecipe) -> tuple[SourceStamp, ...]:
    """Real galaxies as sources. InputError where their colours are to be real and are not there."""
    stamps = load_sources(data, recipe.hosts)
    if recipe.source_colours == "sed" or data is None:
        return stamps
    known = load_colours(data, recipe.hosts)
    for what, found in (("hsc_cosmos/blends", known), ("hst_cosmos", stamps)):
        if not len(found):
            expected = f"sed, or galaxies of {what} in {data}"
            raise InputError("simulate.source_colours", expected, "real and none")
    return tuple(replace(stamp, colours=known) for stamp in stamps)


def truth_columns(instrument: Instrument) -> list[str]:
    """Names of the truth data sets, for the bands of all grids."""
    return [*TRUTH, *(f"{name}_{band}" for name in TRUTH_PER_BAND for band in instrument.filters)]


def rows(generator: Generator, start: int) -> Rows:
    """The run of `CHUNK_ROWS` examples that begins with number `start`."""
    stop = min(start + CHUNK_ROWS, generator.recipe.n)
    made = [generator.example(index) for index in range(start, stop)]
    arrays: dict[str, np.ndarray[Any, Any]] = {
        **_pixels(generator, made),
        "label": np.array([e.label for e in made], dtype=np.uint8),
        "kind": np.array([e.kind for e in made], dtype=np.str_),
        "host": np.array([e.host for e in made], dtype=np.str_),
        "source": np.array([e.source for e in made], dtype=np.str_),
        "object_id": np.arange(start, stop, dtype=np.int64),
    }
    for name in truth_columns(generator.instrument):
        values = [e.truth.get(name, np.nan) for e in made]
        arrays[f"truth/{name}"] = np.array(values, dtype=np.float32)
    return Rows(start, arrays)


def _pixels(generator: Generator, made: list[Example]) -> dict[str, np.ndarray[Any, Any]]:
    if generator.recipe.content == "arcs":
        return {"arcs": np.stack([e.arcs for e in made if e.arcs is not None])}
    main, *more = generator.views
    stacks = {view.dataset: np.stack([e.more_images[view.dataset] for e in made]) for view in more}
    return {main.dataset: np.stack([e.image for e in made]), **stacks}


def recipe_text(recipe: SimulateRecipe) -> str:
    """The recipe as a set carries it: all that made it but for the place of the real data."""
    return yaml.safe_dump(recipe.model_dump(mode="json", exclude={"data"}), sort_keys=True)


def attributes(generator: Generator) -> dict[str, Any]:
    """What a set says of itself; arcs alone say how many electrons their light is, for the noise
    that they bring to the image that they are laid on."""
    view = generator.views[0]
    electrons = [view.instrument.noise[band].electrons for band in view.instrument.bands]
    return {
        **pixel_attributes(view),
        **({"electrons_per_flux": electrons} if generator.recipe.content == "arcs" else {}),
        "recipe": recipe_text(generator.recipe),
        "seed": generator.recipe.seed,
        "real_hosts": len(generator.hosts),
        "real_sources": len(generator.sources),
    }


def pixel_attributes(view: View) -> dict[str, Any]:
    """What the pixels of one grid are. psf: of each band, the image or the profile it was."""
    instrument = view.instrument
    images = [instrument.psf_pixels(band) is not None for band in instrument.bands]
    return {
        "bands": list(instrument.bands),
        "pixel_scale_arcsec": instrument.pixel_scale_arcsec,
        "zero_point_mag": instrument.zero_point_mag,
        "psf": ["image" if image else "moffat" for image in images],
    }


def attributes_of_data_sets(generator: Generator) -> dict[str, dict[str, Any]]:
    """Data set name -> what stands on it, where the grids of a set differ; else nothing."""
    if len(generator.views) == 1:
        return {}
    return {view.dataset: pixel_attributes(view) for view in generator.views}


def parse_recipe(block: Mapping[str, Any]) -> SimulateRecipe:
    """The block `simulate` of a recipe file. InputError names the key that is wrong."""
    try:
        return SimulateRecipe.model_validate(dict(block))
    except ValidationError as error:
        raise first_problem(error, "simulate") from error
