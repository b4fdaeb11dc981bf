"""What every instrument in `training/simulate/instruments/` keeps to, held against lenstronomy."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from astropy.io import fits
from lenstronomy.SimulationAPI.sim_api import SimAPI

from lenspipe.errors import InputError
from training.simulate import colours, contaminants
from training.simulate.instrument import (
    ONLY_GRID,
    Instrument,
    instrument_names,
    load_grids,
    load_instrument,
    parse_grids,
    parse_instrument,
    select_bands,
)
from training.simulate.observe import (
    add_noise,
    add_points,
    convolve,
    draw_conditions,
    fwhm_pixels,
    psf_image,
    sky_noise,
    typical_conditions,
)
from training.simulate.priors import sersic
from training.simulate.scene import flux, render_light

FOLDER = Path(__file__).parents[3] / "training" / "simulate" / "instruments"
DATA = Path(__file__).parents[4] / "shared" / "data"


def every_grid(name: str) -> dict[str, Instrument]:
    """All grids with all bands, not only the default ones."""
    content = yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    grids = parse_grids(content, name)
    return select_bands(grids, tuple(band for grid in grids.values() for band in grid.bands))


GRIDS = [(name, grid) for name in instrument_names() for grid in every_grid(name)]
BANDS = [(name, grid, band) for name, grid in GRIDS for band in every_grid(name)[grid].bands]


def simulator(instrument: Instrument, band: str, sky_rms: float, size: int) -> SimAPI:
    """lenstronomy's simulation of one band, with counts of one flux unit per second and `gain`
    electrons each, and this noise (flux)."""
    noise, psf = instrument.noise[band], typical_conditions(instrument).psf
    single = {
        "pixel_scale": instrument.pixel_scale_arcsec,
        "exposure_time": noise.exposure_s,
        "magnitude_zero_point": instrument.zero_point_mag + 2.5 * np.log10(noise.gain),
        "background_noise": sky_rms * noise.gain,
        "data_count_unit": "e-",
        "psf_type": "PIXEL",
        "kernel_point_source": psf[instrument.bands.index(band)].astype(np.float64),
        "point_source_supersampling_factor": 1,
    }
    models = {"lens_light_model_list": ["SERSIC_ELLIPSE"], "point_source_model_list": ["UNLENSED"]}
    return SimAPI(size, single, models)


def test_all_surveys_are_there() -> None:
    wanted = {"ps1", "hsc", "kids", "des", "lsst", "euclid", "hst-f160w"}
    assert wanted <= set(instrument_names())


@pytest.mark.parametrize("name", instrument_names())
def test_the_file_says_where_its_numbers_come_from(name: str) -> None:
    text = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    assert yaml.safe_load(text)["name"] == name
    assert text.startswith("# ")
    assert "et al." in text.split("name:")[0]


@pytest.mark.parametrize(("name", "grid", "band"), BANDS)
def test_the_sky_is_lenstronomys(name: str, grid: str, band: str) -> None:
    """Noise of a pixel by sky brightness, exposures and read-out, and by 40,000 pixels drawn:
    0.1% and 1.5%. Correlated noise is compared by what large areas have."""
    instrument = every_grid(name)[grid]
    noise = instrument.noise[band]
    stated = instrument.sky_rms(band)
    if noise.sky_brightness_mag is not None and noise.dark_e_s == 0:
        api = SimAPI(
            11,
            {
                "pixel_scale": instrument.pixel_scale_arcsec,
                "exposure_time": noise.exposure_s / noise.exposures,
                "num_exposures": noise.exposures,
                "magnitude_zero_point": instrument.zero_point_mag + 2.5 * np.log10(noise.gain),
                "read_noise": noise.read_noise_e,
                "ccd_gain": 1.0,
                "sky_brightness": noise.sky_brightness_mag,
                "psf_type": "NONE",
                "data_count_unit": "e-",
            },
            {},
        )
        expected = api.background_noise / noise.gain
        assert stated * instrument.correlation_factor == pytest.approx(expected, rel=1e-3)
    drawn = stated * sky_noise(np.random.default_rng(1), instrument, (1, 200, 200))
    assert drawn.std() == pytest.approx(stated, rel=0.015)


@pytest.mark.parametrize(("name", "grid", "band"), BANDS)
@pytest.mark.parametrize("kind", ["star", "galaxy"])
def test_flux_of_a_known_magnitude_is_lenstronomys(
    name: str, grid: str, band: str, kind: str
) -> None:
    """A star and a galaxy of 20 mag: total, and each pixel against the peak, within 1e-5 and 2e-3
    of SimAPI's image (which samples the galaxy's cusp less finely)."""
    instrument = every_grid(name)[grid]
    k, step, size = instrument.bands.index(band), instrument.pixel_scale_arcsec, 65
    psf = typical_conditions(instrument).psf
    api = simulator(instrument, band, 1.0, size)
    total = np.zeros((len(instrument.bands), size, size), dtype=np.float32)
    if kind == "star":
        fluxes = np.full(len(instrument.bands), flux(20.0, instrument.zero_point_mag))
        add_points(total, psf, [(size // 2, size // 2, fluxes)])
        model = api.image_model_class({"convolution_type": "fft"})
        point = [{"magnitude": [20.0], "ra_image": [0.0], "dec_image": [0.0]}]
        _, _, points = api.magnitude2amplitude(kwargs_ps_mag=point)
        theirs = model.image(kwargs_ps=points, lens_light_add=False)
    else:
        radius = 5.0 * step
        part = sersic(dict.fromkeys(instrument.bands, 20.0), radius, 1.0, (0.1, 0.05))
        shape = (size, size)
        total = render_light([part], instrument.bands, shape, step, instrument.zero_point_mag)
        total = convolve(total, psf)
        model = api.image_model_class({"supersampling_factor": 5, "convolution_type": "fft"})
        light, *_ = api.magnitude2amplitude([{"magnitude": 20.0, **part.parameters}])
        theirs = model.image(kwargs_lens_light=light, point_source_add=False)
    theirs = theirs / instrument.noise[band].gain
    limit = {"star": 1e-5, "galaxy": 2e-3}[kind]
    assert total[k].sum() == pytest.approx(theirs.sum(), rel=limit)
    assert np.abs(total[k] - theirs).max() < limit * theirs.max()


@pytest.mark.parametrize(("name", "grid", "band"), BANDS)
def test_photon_noise_of_a_bright_source_is_lenstronomys(name: str, grid: str, band: str) -> None:
    """Standard deviation over 40,000 pixels of a surface 100 times as bright as the sky's noise,
    and of one whose own noise is as large as the sky's: within 1.5%."""
    instrument = every_grid(name)[grid]
    seen = typical_conditions(instrument)
    k, noise = instrument.bands.index(band), instrument.noise[band]
    rms = float(seen.sky_rms[k])
    api = simulator(instrument, band, rms, 11)
    for level in (100 * rms, rms**2 * noise.electrons):
        image = np.full((len(instrument.bands), 200, 200), level, dtype=np.float32)
        drawn = (add_noise(np.random.default_rng(5), image, instrument, seen) - image)[k]
        counts = np.array([[level * noise.gain]])
        expected = float(api.estimate_noise(counts)[0, 0]) / noise.gain
        assert drawn.std() == pytest.approx(expected, rel=0.015)


@pytest.mark.parametrize(("name", "grid", "band"), BANDS)
def test_the_psf_has_unit_sum_and_its_width(name: str, grid: str, band: str) -> None:
    """Sum within 1e-4; on a grid as fine as 20 pixels per FWHM the width is the stated one to 2%;
    on the survey's own pixels, which are in it, to 8%."""
    instrument = every_grid(name)[grid]
    k, psf = instrument.bands.index(band), instrument.psf[band]
    image = typical_conditions(instrument).psf[k]
    fine = psf.fwhm_arcsec / 20
    sharp = psf_image(psf.fwhm_arcsec, psf.moffat_beta, fine, size_pixels=201)
    assert image.sum() == pytest.approx(1.0, abs=1e-4)
    assert fwhm_pixels(sharp) * fine == pytest.approx(psf.fwhm_arcsec, rel=0.02)
    step = instrument.pixel_scale_arcsec
    assert fwhm_pixels(image) * step == pytest.approx(psf.fwhm_arcsec, rel=0.08)


@pytest.mark.parametrize(("name", "grid"), GRIDS)
def test_the_depth_is_the_surveys(name: str, grid: str) -> None:
    """5 sigma of a point source by a matched filter, within 0.45 mag of what the survey states:
    definitions and apertures differ, and large-scale noise stands in for that at the PSF's."""
    instrument = every_grid(name)[grid]
    seen = typical_conditions(instrument)
    for band, stated in instrument.depth_mag.items():
        k = instrument.bands.index(band)
        effective = 1.0 / float((seen.psf[k].astype(np.float64) ** 2).sum())
        rms = float(seen.sky_rms[k]) * instrument.correlation_factor * np.sqrt(effective)
        limit = instrument.zero_point_mag - 2.5 * np.log10(5.0 * rms)
        assert limit == pytest.approx(stated, abs=0.45)


@pytest.mark.parametrize(("name", "grid"), GRIDS)
def test_conditions_scatter_as_stated(name: str, grid: str) -> None:
    instrument = every_grid(name)[grid]
    rng = np.random.default_rng(11)
    drawn = [draw_conditions(rng, instrument) for _ in range(60)]
    dex = np.log10([c.sky_rms for c in drawn])
    stated = np.log10([instrument.sky_rms(band) for band in instrument.bands])
    np.testing.assert_allclose(dex.mean(axis=0), stated, atol=0.05)
    assert all(c.psf.sum(axis=(1, 2)) == pytest.approx(1.0, abs=1e-4) for c in drawn)


@pytest.mark.parametrize("name", instrument_names())
@pytest.mark.parametrize("kind", contaminants.names())
def test_every_kind_of_object_has_magnitudes_in_every_band(name: str, kind: str) -> None:
    grids = every_grid(name)
    first = next(iter(grids.values()))
    scene = contaminants.draw(np.random.default_rng(3), kind, first)
    bands = [band for grid in grids.values() for band in grid.bands]
    assert list(scene.magnitudes) == bands == list(first.filters)
    assert np.isfinite(list(scene.magnitudes.values())).all()
    assert all(abs(m - scene.i_mag) < 8 for m in scene.magnitudes.values())


def test_pan_starrs_gives_g_r_i_where_nobody_asks() -> None:
    assert load_instrument("ps1").bands == ("g", "r", "i")
    assert load_instrument("ps1", ("y", "g")).bands == ("y", "g")
    assert tuple(load_instrument("ps1", ("y", "g")).filters) == ("y", "g")


def test_grids_share_their_filters_and_keep_their_pixels() -> None:
    grids = load_grids("euclid")
    assert {name: grid.bands for name, grid in grids.items()} == {
        "vis": ("VIS",),
        "nisp": ("Y", "J", "H"),
    }
    assert [grid.pixel_scale_arcsec for grid in grids.values()] == [0.1, 0.3]
    assert all(tuple(grid.filters) == ("VIS", "Y", "J", "H") for grid in grids.values())
    assert list(load_grids("euclid", ("H", "Y"))) == ["nisp"]
    assert list(load_grids("ps1")) == [ONLY_GRID]


@pytest.mark.parametrize("bands", [("g", "u"), ("g", "g"), ()])
def test_bands_that_it_has_not_are_refused(bands: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match="bands: expected some of g, r, i, z, y, each once"):
        load_grids("ps1", bands)


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"sky_rms": None}, "one of sky_rms and sky_brightness_mag"),
        ({"sky_brightness_mag": 21.0}, "one of sky_rms and sky_brightness_mag"),
        ({"read_noise_e": 4.0}, "no read_noise_e or dark_e_s beside a measured sky_rms"),
    ],
)
def test_noise_is_either_measured_or_follows_from_the_sky(
    change: dict[str, float | None], where: str
) -> None:
    content = load_instrument("ps1").model_dump()
    content["noise"]["g"] |= change
    with pytest.raises(InputError, match=where):
        parse_instrument(content, "mine.yaml")


def test_dark_current_and_read_out_add_to_the_skys_variance() -> None:
    content = load_instrument("hst-f160w").model_dump()
    plain = parse_instrument(content, "mine.yaml")
    content["noise"]["F160W"] |= {"dark_e_s": 0.05, "exposures": 4}
    more = parse_instrument(content, "mine.yaml")
    electrons = plain.noise["F160W"].electrons
    added = (more.sky_rms("F160W") * electrons) ** 2 - (plain.sky_rms("F160W") * electrons) ** 2
    assert added == pytest.approx(0.05 * 5400 + 3 * 4.0**2, rel=1e-6)


def test_a_psf_image_that_is_not_there_is_told(tmp_path: Path) -> None:
    hubble = load_instrument("hst-f160w")
    for data in (None, tmp_path):
        with pytest.warns(UserWarning, match="hst-f160w F160W: no f.*a Moffat profile stands in"):
            assert hubble.with_psf_images(data) == hubble
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ps1 = load_instrument("ps1")
        assert ps1.with_psf_images(None) is ps1


def test_a_psf_image_is_used_as_it_is(tmp_path: Path) -> None:
    from astropy.io import fits

    hubble = load_instrument("hst-f160w")
    path = tmp_path / str(hubble.psf["F160W"].image)
    path.parent.mkdir(parents=True)
    y, x = np.mgrid[:51, :47] - np.array([25, 23])[:, None, None]
    image = np.exp(-(x**2) / 8.0 - y**2 / 18.0)
    fits.writeto(path, 3.0 * image)
    loaded = hubble.with_psf_images(tmp_path)
    drawn = draw_conditions(np.random.default_rng(1), loaded)
    assert drawn.psf.shape == (1, 47, 47)
    np.testing.assert_allclose(drawn.psf[0], image[2:49] / image[2:49].sum(), atol=1e-7)
    assert drawn.fwhm_arcsec[0] == pytest.approx(2.355 * np.sqrt(6.0) * 0.08, rel=0.03)
    star = np.zeros((1, 47, 47), dtype=np.float32)
    add_points(star, drawn.psf, [(23.0, 23.0, np.ones(1))])
    np.testing.assert_allclose(star, drawn.psf, atol=1e-7)


@pytest.mark.data
@pytest.mark.skipif(not (DATA / "psf").is_dir(), reason="no real data in ../shared/data")
def test_the_stand_in_is_as_wide_as_the_challenges_psf() -> None:
    hubble = load_instrument("hst-f160w")
    real = draw_conditions(np.random.default_rng(1), hubble.with_psf_images(DATA))
    assert real.psf.shape == (1, 99, 99)
    assert real.fwhm_arcsec[0] == pytest.approx(hubble.psf["F160W"].fwhm_arcsec, rel=0.05)


def test_typical_conditions_are_those_of_the_instrument_asked_for() -> None:
    gri, all_ = load_instrument("ps1"), load_instrument("ps1", ("g", "r", "i", "z", "y"))
    assert len(typical_conditions(gri).fwhm_arcsec) == 3
    assert len(typical_conditions(all_).fwhm_arcsec) == 5
    changed = gri.model_copy(update={"pixel_scale_arcsec": 0.5})
    assert not np.allclose(typical_conditions(changed).psf, typical_conditions(gri).psf)
    same = replace(typical_conditions(gri))
    assert np.array_equal(same.psf, typical_conditions("ps1").psf)


def test_instruments_with_psf_images_are_equal_where_their_pixels_are(tmp_path: Path) -> None:
    """What is kept for an instrument is found again for an equal one, and for no other."""
    hubble, place = load_instrument("hst-f160w"), tmp_path
    path = place / str(hubble.psf["F160W"].image)
    path.parent.mkdir(parents=True)
    loaded = []
    for width in (2.0, 2.0, 4.0):
        pixels = psf_image(width, 3.0, 1.0, size_pixels=21)
        fits.PrimaryHDU(pixels).writeto(path, overwrite=True)
        loaded.append(hubble.with_psf_images(place))
    one, same, wider = loaded
    assert (one == same, one == wider, one == hubble) == (True, False, False)
    assert typical_conditions(same) is typical_conditions(one)
    assert typical_conditions(wider).fwhm_arcsec > 1.5 * typical_conditions(one).fwhm_arcsec
    assert one != "hst-f160w"


def test_pan_starrs_filters_are_those_that_colours_are_measured_in() -> None:
    assert colours.measured_filters() == dict(load_instrument("ps1").filters)
