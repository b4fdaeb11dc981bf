"""What a search finds besides lenses, one function per kind, and `draw` over all kinds."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from training.simulate import colours, priors
from training.simulate.lens import VISIBLE, Visible, draw_lens
from training.simulate.observe import Instrument, typical_conditions
from training.simulate.passband import Filters
from training.simulate.priors import Host
from training.simulate.scene import Component, Point, Scene

BRIGHT_I_MAG, FAINT_I_MAG = 15.5, 21.0


def _scene(
    kind: str, parts: list[Component], radius_arcsec: float, redshift: float, i_mag: float
) -> Scene:
    total = priors.combined([part.magnitudes for part in parts])
    return Scene(kind, tuple(parts), total, radius_arcsec, i_mag, truth={"z_lens": redshift})


def _magnitudes(
    rng: np.random.Generator, spectrum: str, redshift: float, i_mag: float, filters: Filters
) -> dict[str, float]:
    """Magnitudes in all bands of light of a kind of spectrum with this Pan-STARRS i magnitude."""
    return priors.magnitudes(i_mag, colours.draw(rng, spectrum, redshift, filters))


def _moved(component: Component, dx: float, dy: float) -> Component:
    at = component.parameters
    moved = {**at, "center_x": at["center_x"] + dx, "center_y": at["center_y"] + dy}
    return Component(component.profile, moved, component.magnitudes)


def _polar(rng: np.random.Generator, low: float, high: float) -> tuple[float, float]:
    """A place at a distance of low to high arcsec, even in area."""
    radius = np.sqrt(rng.uniform(low**2, high**2))
    angle = rng.uniform(0, 2 * np.pi)
    return float(radius * np.cos(angle)), float(radius * np.sin(angle))


def _i_mag(rng: np.random.Generator) -> float:
    # Flatter than the sky's counts, so that bright, well resolved examples are not rare.
    return priors.counts(rng, BRIGHT_I_MAG, FAINT_I_MAG, slope=0.12)


def _disc_radius(rng: np.random.Generator, i_mag: float) -> float:
    """Half-light radius of a late type in arcsec against magnitude, with its scatter."""
    return float(np.clip(2.1 * 10.0 ** (-0.13 * (i_mag - 18.0) + rng.normal(0, 0.14)), 0.35, 7.0))


def _disc_redshift(rng: np.random.Generator, i_mag: float) -> float:
    return float(np.clip(0.05 + 0.06 * (i_mag - 16.0) + rng.normal(0, 0.05), 0.02, 0.5))


def early_type(rng: np.random.Generator, filters: Filters) -> Scene:
    """A luminous red galaxy: most as lens hosts are, the others of any mass."""
    host = priors.draw_host(rng, filters, massive=bool(rng.random() < 0.7))
    return _of_host("early_type", host, [])


def _of_host(kind: str, host: Host, others: list[Component]) -> Scene:
    return Scene(
        kind,
        (*host.components, *others),
        host.magnitudes,
        host.radius_arcsec,
        host.i_mag,
        truth={"z_lens": host.redshift, "sigma_v_km_s": host.sigma_km_s},
    )


def spiral(rng: np.random.Generator, filters: Filters) -> Scene:
    """Red bulge, sometimes a bar, and a blue disc with logarithmic arms."""
    i_mag = _i_mag(rng)
    z, radius = _disc_redshift(rng, i_mag), _disc_radius(rng, i_mag)
    shape = priors.ellipticity(rng, 0.35, 1.0)
    bulge_fraction = float(rng.uniform(0.03, 0.45))
    disc = _magnitudes(rng, "disc", z, i_mag - 2.5 * np.log10(1 - bulge_fraction), filters)
    bulge = _magnitudes(rng, "passive", z, i_mag - 2.5 * np.log10(bulge_fraction), filters)
    smooth, arms = priors.split(disc, float(rng.uniform(0.2, 0.6)))
    arms = colours.tinted(arms, filters, colours.YOUNG_ARMS, float(rng.uniform(0.05, 0.3)))
    parameters = {
        "scale_arcsec": radius / 1.68 * float(rng.uniform(1.0, 1.25)),
        "arms": int(rng.choice([2, 2, 2, 3, 4])),
        "pitch_rad": float(np.radians(rng.uniform(12, 32))),
        "contrast": float(rng.uniform(1.0, 4.0)),
        "start_rad": float(rng.uniform(0, 2 * np.pi)),
        "e1": shape[0],
        "e2": shape[1],
        "center_x": 0.0,
        "center_y": 0.0,
    }
    parts = [
        Component("SPIRAL_DISC", parameters, arms),
        priors.sersic(smooth, radius, 1.0, shape),
    ]
    core = float(np.clip(radius * rng.uniform(0.12, 0.35), 0.15, 2.0))
    if rng.random() < 0.35:
        bar, bulge = priors.split(bulge, float(rng.uniform(0.3, 0.6)))
        along = priors.ellipticity(rng, 0.2, 0.4)
        parts.append(priors.sersic(bar, float(radius * rng.uniform(0.3, 0.6)), 0.7, along))
    parts.append(
        priors.sersic(bulge, core, float(rng.uniform(1.5, 4.0)), (shape[0] / 2, shape[1] / 2))
    )
    return _scene("spiral", parts, radius, z, i_mag)


def ring(rng: np.random.Generator, filters: Filters) -> Scene:
    """Red core inside a blue ring, whole or broken: the nearest look-alike of an Einstein ring."""
    i_mag = _i_mag(rng)
    z = _disc_redshift(rng, i_mag)
    radius = float(rng.uniform(1.2, 4.0))
    shape = priors.ellipticity(rng, 0.5, 1.0)
    fraction = float(rng.uniform(0.25, 0.65))
    core = _magnitudes(rng, "passive", z, i_mag - 2.5 * np.log10(1 - fraction), filters)
    blue = _magnitudes(rng, "disc", z, i_mag - 2.5 * np.log10(fraction), filters)
    parameters = {
        "radius_arcsec": radius,
        "width_arcsec": float(radius * rng.uniform(0.08, 0.28)),
        "contrast": float(rng.exponential(0.5)),
        "lobes": int(rng.integers(1, 4)),
        "start_rad": float(rng.uniform(0, 2 * np.pi)),
        "e1": shape[0],
        "e2": shape[1],
        "center_x": 0.0,
        "center_y": 0.0,
    }
    ring_light, disc_light = priors.split(blue, float(rng.uniform(0.5, 0.95)))
    core_radius = float(radius * rng.uniform(0.2, 0.45))
    parts = [
        Component("RING", parameters, ring_light),
        priors.sersic(disc_light, radius, 1.0, shape),
        priors.sersic(
            core, core_radius, float(rng.uniform(1.5, 4.0)), (shape[0] / 2, shape[1] / 2)
        ),
    ]
    return _scene("ring", parts, radius, z, i_mag)


def merger(rng: np.random.Generator, filters: Filters) -> Scene:
    """Two or three galaxies that touch, red or blue, often with a tidal tail."""
    i_mag = _i_mag(rng)
    z = _disc_redshift(rng, i_mag)
    parts: list[Component] = []
    for k in range(2 + int(rng.random() < 0.3)):
        own = i_mag + (0.5 if k == 0 else float(rng.uniform(0.6, 2.5)))
        red = rng.random() < 0.45
        light = _magnitudes(rng, "passive" if red else "disc", z, own, filters)
        radius = _disc_radius(rng, own) * float(rng.uniform(0.4, 0.9))
        index = float(rng.uniform(2.0, 4.5) if red else rng.uniform(0.7, 1.6))
        at = (0.0, 0.0) if k == 0 else _polar(rng, 0.7, 3.5)
        parts.append(priors.sersic(light, radius, index, priors.ellipticity(rng, 0.3, 0.95), at))
    parts.extend(_tail(rng, filters, i_mag, z) for _ in range(rng.integers(0, 3)))
    return _scene("merger", parts, _disc_radius(rng, i_mag), z, i_mag)


def _tail(rng: np.random.Generator, filters: Filters, i_mag: float, redshift: float) -> Component:
    """A curved stream of stars that starts at the galaxy."""
    radius = float(rng.uniform(1.5, 4.5))
    away = rng.uniform(0, 2 * np.pi)
    parameters = {
        "radius_arcsec": radius,
        "width_arcsec": float(rng.uniform(0.25, 0.6)),
        "contrast": float(rng.uniform(1.5, 6.0)),
        "start_rad": float(away + np.pi + rng.normal(0, 0.8)),
        "center_x": float(radius * np.cos(away) * rng.uniform(0.3, 1.0)),
        "center_y": float(radius * np.sin(away) * rng.uniform(0.3, 1.0)),
    }
    colour = colours.draw(rng, "disc", redshift, filters)
    return Component(
        "RING", parameters, priors.magnitudes(i_mag + float(rng.uniform(1.5, 3.5)), colour)
    )


def edge_on(rng: np.random.Generator, filters: Filters) -> Scene:
    """A thin disc from its side, with a bulge; long, straight and sometimes blue."""
    i_mag = _i_mag(rng)
    z, radius = _disc_redshift(rng, i_mag), _disc_radius(rng, i_mag) * 1.3
    angle = float(rng.uniform(0, np.pi))
    disc_shape = priors.ellipticity_of(float(rng.uniform(0.1, 0.28)), angle)
    bulge_shape = priors.ellipticity_of(float(rng.uniform(0.5, 0.9)), angle)
    fraction = float(rng.uniform(0.05, 0.5))
    dust = float(rng.uniform(0.0, 0.35))
    clear = _magnitudes(rng, "disc", z, i_mag - 2.5 * np.log10(1 - fraction), filters)
    disc = colours.tinted(clear, filters, colours.EDGE_ON_DUST, dust)
    bulge = _magnitudes(rng, "passive", z, i_mag - 2.5 * np.log10(fraction), filters)
    parts = [
        priors.sersic(disc, radius, 1.0, disc_shape),
        priors.sersic(bulge, 0.3 * radius, float(rng.uniform(1.5, 4.0)), bulge_shape),
    ]
    return _scene("edge_on", parts, radius, z, i_mag)


def group(rng: np.random.Generator, filters: Filters) -> Scene:
    """A red galaxy with two to five red companions of its own redshift."""
    host = priors.draw_host(rng, filters, massive=bool(rng.random() < 0.7))
    others = []
    for _ in range(rng.integers(2, 6)):
        i_mag = host.i_mag + float(rng.uniform(0.3, 3.5))
        light = _magnitudes(rng, "passive", host.redshift, i_mag, filters)
        radius = host.radius_arcsec * 10.0 ** (-0.12 * (i_mag - host.i_mag))
        shape = priors.ellipticity(rng, 0.5, 1.0)
        index = float(rng.uniform(2.0, 4.5))
        others.append(priors.sersic(light, max(0.2, radius), index, shape, _polar(rng, 1.0, 6.0)))
    return _of_host("group", host, others)


def companion(rng: np.random.Generator, filters: Filters) -> Scene:
    """A lens-like host with blue galaxies beside it that are not lensed: the hard negative.

    Their brightness, size and colour are those of arcs; some lie tangentially by chance.
    """
    host = priors.draw_host(rng, filters)
    others = []
    for _ in range(1 + int(rng.random() < 0.3)):
        x, y = _polar(rng, 0.8, 4.0)
        spectrum, z = ("source", 0.8) if rng.random() < 0.6 else ("disc", 0.3)
        colour = colours.draw(rng, spectrum, z, filters, reference="r")
        light = priors.magnitudes(priors.counts(rng, 20.0, 22.8), colour)
        q = float(rng.uniform(0.2, 0.95))
        tangential = np.arctan2(y, x) + np.pi / 2
        angle = tangential + rng.normal(0, 0.3) if rng.random() < 0.3 else rng.uniform(0, np.pi)
        radius = float(rng.uniform(0.15, 0.7))
        index = float(rng.uniform(0.6, 1.8))
        others.append(
            priors.sersic(light, radius, index, priors.ellipticity_of(q, float(angle)), (x, y))
        )
    return _of_host("companion", host, others)


def star(rng: np.random.Generator, filters: Filters) -> Scene:
    """A star, now and then a pair that the catalogue took for one source."""
    first = _i_mag(rng)
    points = [Point(0.0, 0.0, _magnitudes(rng, "star", 0.0, first, filters))]
    if rng.random() < 0.25:
        x, y = _polar(rng, 0.6, 3.0)
        second = first + float(rng.uniform(0.0, 2.5))
        points.append(Point(x, y, _magnitudes(rng, "star", 0.0, second, filters)))
    total = priors.combined([point.magnitudes for point in points])
    return Scene("star", (), total, i_mag=first, points=tuple(points))


def saturated_star(rng: np.random.Generator, filters: Filters) -> Scene:
    """A star that fills the detector's pixels; the caller lets them bleed (`observe.saturate`)."""
    i_mag = priors.counts(rng, 9.0, 13.0)
    light = _magnitudes(rng, "star", 0.0, i_mag, filters)
    return Scene("saturated_star", (), light, i_mag=i_mag, points=(Point(0.0, 0.0, light),))


CONTAMINANTS: Mapping[str, Callable[[np.random.Generator, Filters], Scene]] = {
    "early_type": early_type,
    "spiral": spiral,
    "ring": ring,
    "merger": merger,
    "edge_on": edge_on,
    "group": group,
    "companion": companion,
    "star": star,
    "saturated_star": saturated_star,
}
KINDS = ("lens", *CONTAMINANTS)


def draw(
    rng: np.random.Generator, kind: str, instrument: Instrument, visible: Visible = VISIBLE
) -> Scene:
    """A random scene of a kind. A lens's arcs are visible under the instrument's median seeing and
    sky. KeyError: no such kind."""
    if kind == "lens":
        return draw_lens(rng, instrument, typical_conditions(instrument.name), visible=visible)[0]
    return CONTAMINANTS[kind](rng, instrument.filters)
