"""A line on why a stamp was probably missed or mistaken, from measurements alone.

Each reason is `class: detail`. They are guesses: what stands out in a stamp, not what the network
saw.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from lenspipe.contracts import Flag

SEEING_ARCSEC = 1.2
_NEAR_ARCSEC = 4.0
Measures = Mapping[str, float]


def of_false_positive(measures: Measures, kind: str, flags: int = 0) -> list[str]:
    """What a non-lens with a high score resembles a lens in; the likeliest first."""
    return list(_false_positive(measures, kind, flags)) or ["unknown: no measurement stands out"]


def of_miss(truth: Measures, measures: Measures, band: str) -> list[str]:
    """What makes arcs hard to see; the likeliest first. truth: of an injection."""
    return list(_miss(truth, measures, band)) or ["unknown: no measurement stands out"]


def counted(reasons: Sequence[Sequence[str]]) -> dict[str, int]:
    """Of so many stamps, how many have a reason of each class; the most frequent first."""
    counts: dict[str, int] = {}
    for one in reasons:
        for name in {reason.split(":")[0] for reason in one}:
            counts[name] = counts.get(name, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _false_positive(m: Measures, kind: str, flags: int) -> Iterator[str]:
    if flags & int(Flag.NAN_FILLED | Flag.MASKED):
        yield "artefact: pixels of its frame were missing and filled"
    if "point-like" in kind or m["r50_arcsec"] < 0.8:
        yield f"star: half-light radius {m['r50_arcsec']:.2f}″"
    if m["neighbours"] and m["nearest_neighbour_arcsec"] < _NEAR_ARCSEC:
        yield f"neighbour: {m['nearest_neighbour_arcsec']:.1f}″ away"
    if m["bluest_spot_snr"] > 6.0:
        yield f"blue spot: beside the core, S/N {m['bluest_spot_snr']:.0f}"
    if m["concentration"] < 2.6 and m["g-r"] < 1.0:
        yield f"spiral or irregular: g−r {m['g-r']:.1f}, concentration {m['concentration']:.1f}"
    if m["ellipticity"] > 0.2:
        yield f"edge-on: ellipticity {m['ellipticity']:.2f}"
    if m["ring_blue"] > 0.3:
        yield f"blue outskirts: {m['ring_blue']:.1f} mag bluer than the core"
    elif m["g-r"] >= 1.0 and m["bluest_spot_snr"] <= 6.0:
        yield f"plain red galaxy: g−r {m['g-r']:.1f}, nothing beside it"


def _miss(truth: Measures, measures: Measures, band: str) -> Iterator[str]:
    theta_e, radius, snr = (
        truth[name] for name in ("theta_e_arcsec", "host_radius_arcsec", f"arc_snr_{band}")
    )
    contrast = truth[f"arc_mag_{band}"] - truth[f"host_mag_{band}"]
    if truth["magnification"] < 3.0:
        yield f"one image: magnification {truth['magnification']:.1f}, looks like a companion"
    if theta_e < SEEING_ARCSEC * 1.2:
        yield f"small: θ_E {theta_e:.2f}″, within the seeing"
    elif theta_e < 1.3 * radius:
        yield f"inside the host: its r50 is {radius:.2f}″"
    if theta_e > 2.2:
        yield f"wide: θ_E {theta_e:.2f}″, images look like neighbours"
    if contrast > 1.0:
        yield f"faint beside the host: by {contrast:.1f} mag"
    if measures["neighbours"] and measures["nearest_neighbour_arcsec"] < _NEAR_ARCSEC:
        yield f"crowded: another source {measures['nearest_neighbour_arcsec']:.1f}″ away"
    if snr < 25.0:
        yield "low S/N: experts miss arcs below 25 too"
