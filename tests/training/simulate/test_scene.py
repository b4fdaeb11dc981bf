from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lenstronomy.Data.imaging_data import ImageData
from lenstronomy.Data.psf import PSF
from lenstronomy.ImSim.image_model import ImageModel
from lenstronomy.LensModel.lens_model import LensModel
from lenstronomy.LightModel.light_model import LightModel
from scipy.ndimage import center_of_mass
from scipy.ndimage import label as connected

from training.simulate.scene import (
    Component,
    Lens,
    Scene,
    flux,
    point_fluxes,
    render,
    render_arcs,
    render_onto,
)

GRI = ("g", "r", "i")
MAGNITUDES = {"g": 20.5, "r": 19.2, "i": 18.6}
STEP, ZERO = 0.25, 25.0


def galaxy(radius: float, index: float, e1: float = 0.1, e2: float = 0.0) -> Scene:
    parameters = {
        "R_sersic": radius,
        "n_sersic": index,
        "e1": e1,
        "e2": e2,
        "center_x": 0.0,
        "center_y": 0.0,
    }
    return Scene(
        "early_type", (Component("SERSIC_ELLIPSE", parameters, MAGNITUDES),), MAGNITUDES, radius
    )


def source(radius: float, x: float, y: float) -> Component:
    parameters = {
        "R_sersic": radius,
        "n_sersic": 1.0,
        "e1": 0.0,
        "e2": 0.0,
        "center_x": x,
        "center_y": y,
    }
    return Component("SERSIC_ELLIPSE", parameters, MAGNITUDES)


def isothermal(theta_e: float, e1: float = 0.0) -> tuple[str, dict[str, float]]:
    centre = {"center_x": 0.0, "center_y": 0.0}
    return ("EPL", {"theta_E": theta_e, "gamma": 2.0, "e1": e1, "e2": 0.0, **centre})


@settings(max_examples=12, deadline=None)
@given(
    radius=st.floats(0.3, 2.0),
    index=st.floats(0.7, 5.0),
    e1=st.floats(-0.3, 0.3),
    shift=st.floats(-0.5, 0.5),
)
def test_pixels_add_up_to_the_magnitudes(
    radius: float, index: float, e1: float, shift: float
) -> None:
    size = 481  # 120 arcsec: a Sersic profile of index 5 ends nowhere near
    centre = (size / 2 + shift, size / 2)
    image = render(galaxy(radius, index, e1), GRI, size, STEP, ZERO, centre=centre)
    expected = [flux(MAGNITUDES[band], ZERO) for band in GRI]
    # A part of a compact cusp lies between the samples.
    lost = 0.015 if radius >= 0.5 else 0.03
    np.testing.assert_allclose(image.sum(axis=(1, 2)), expected, rtol=lost)


def test_bands_share_one_shape() -> None:
    image = render(galaxy(1.0, 4.0), GRI, 48, STEP, ZERO)
    ratio = flux(MAGNITUDES["g"], ZERO) / flux(MAGNITUDES["i"], ZERO)
    np.testing.assert_allclose(image[0], image[2] * ratio, rtol=1e-5)


def test_a_tile_holds_what_a_stamp_holds() -> None:
    scene, tile = galaxy(0.5, 1.0), np.zeros((3, 90, 80), dtype=np.float32)
    render_onto(tile, scene, GRI, (40.3, 50.6), pixel_scale_arcsec=STEP, zero_point_mag=ZERO)
    stamp = render(scene, GRI, 21, STEP, ZERO, centre=(10.3, 10.6))
    np.testing.assert_allclose(tile[:, 40:61, 30:51], stamp, rtol=1e-5)


def test_what_falls_off_a_tile_is_dropped() -> None:
    tile = np.zeros((3, 40, 40), dtype=np.float32)
    scene = galaxy(0.5, 1.0)
    render_onto(tile, scene, GRI, (200.0, -90.0), pixel_scale_arcsec=STEP, zero_point_mag=ZERO)
    assert not tile.any()
    render_onto(tile, scene, GRI, (-0.5, 20.0), pixel_scale_arcsec=STEP, zero_point_mag=ZERO)
    total = flux(MAGNITUDES["i"], ZERO)
    assert tile[2].sum() == pytest.approx(total / 2, rel=0.01)


def test_two_images_of_an_isothermal_sphere_stand_two_einstein_radii_apart() -> None:
    theta_e, beta = 1.5, 0.3
    lens = Lens((isothermal(theta_e),), (source(0.06, beta, 0.0),))
    arcs = render_arcs(lens, ("i",), (161, 161), 0.05, ZERO)[0]
    blobs, n = connected(arcs > 0.2 * arcs.max())
    assert n == 2
    places = np.array([center_of_mass(arcs, blobs, k) for k in (1, 2)]) * 0.05
    # beta +- theta_E; extended images lean inwards by a little.
    assert np.hypot(*(places[0] - places[1])) == pytest.approx(2 * theta_e, abs=0.03)
    assert sorted(places[:, 1] - 4.0) == pytest.approx([beta - theta_e, beta + theta_e], abs=0.03)


def test_magnification_of_an_isothermal_sphere() -> None:
    theta_e, beta = 1.2, 0.5
    lens = Lens((isothermal(theta_e),), (source(0.08, beta, 0.0),))
    arcs = render_arcs(lens, ("i",), (97, 97), 0.125, ZERO)[0]
    # Both images together: 2 theta_E / beta (Narayan & Bartelmann 1996, equation 47).
    assert arcs.sum() / flux(MAGNITUDES["i"], ZERO) == pytest.approx(2 * theta_e / beta, rel=0.02)


def test_arcs_are_those_of_lenstronomys_image_model() -> None:
    mass, light = isothermal(1.4, e1=0.15), source(0.25, 0.2, -0.15)
    shift = 0.013  # lenstronomy's power law divides by zero on its own centre
    centre = (24.0 - shift / STEP, 24.0)
    found = render_arcs(Lens((mass,), (light,)), ("i",), (49, 49), STEP, ZERO, centre=centre)[0]
    pixels = ImageData(
        np.zeros((49, 49)),
        ra_at_xy_0=-6.0 + shift,
        dec_at_xy_0=-6.0,
        transform_pix2angle=np.eye(2) * STEP,
        background_rms=1.0,
        exposure_time=1.0,
    )
    model = ImageModel(
        pixels,
        PSF("NONE"),
        lens_model_class=LensModel([mass[0]]),
        source_model_class=LightModel(["SERSIC_ELLIPSE"]),
        kwargs_numerics={"supersampling_factor": 5},
    )
    total = flux(MAGNITUDES["i"], ZERO)
    unit = LightModel(["SERSIC_ELLIPSE"]).total_flux([{**light.parameters, "amp": 1.0}])[0]
    expected = model.image(
        [mass[1]], kwargs_source=[{**light.parameters, "amp": total / unit}], unconvolved=True
    )
    # Pixels that the coarse rays find dark have one sample each.
    np.testing.assert_allclose(found, expected, atol=1e-5 * float(expected.max()))


def test_stars_are_points_for_the_caller() -> None:
    from training.simulate.scene import Point

    scene = Scene("star", (), MAGNITUDES, points=(Point(0.5, -0.25, MAGNITUDES),))
    assert not render(scene, GRI, 16, STEP, ZERO).any()
    ((x, y, fluxes),) = point_fluxes(scene, GRI, STEP, ZERO, (8.0, 8.0))
    assert (x, y) == (10.0, 7.0)
    np.testing.assert_allclose(fluxes, [flux(MAGNITUDES[b], ZERO) for b in GRI])
