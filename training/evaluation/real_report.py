"""The page of a model on real pixels. It shows real stamps, so it stays outside of repositories."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64

from lenspipe.models.ensemble import Ensemble
from lenspipe.models.explain import occlusion_map, square_masks
from lenspipe.pages.colour import asinh_rgb, band_weights
from lenspipe.pages.figures import stamp_png
from training.evaluation import real, real_stamps, reasons
from training.evaluation.page import as_json, render, write_json
from training.evaluation.pictures import curves_real, heat
from training.evaluation.real import RealPixels, RealScores

_COLOUR_BANDS = len(real_stamps.MEASURED_BANDS)
_PATCH = 6  # of a stamp's side, for the occlusion maps


@dataclass(frozen=True)
class Tile:
    """A stamp of a mosaic: pictures side by side (data URIs), and lines below."""

    pictures: tuple[str, ...]
    lines: tuple[str, ...]


def write_real(
    folder: Path, pixels: RealPixels, scores: RealScores, ensemble: Ensemble
) -> dict[str, Any]:
    """`real.json`, `index.html` and pictures; the report."""
    report = real.judge(pixels, scores, ensemble)
    missed = real.misses(pixels, scores, report["injection"]["threshold"])
    report["misses"] = {
        "n": len(missed),
        "reasons": reasons.counted([one["reasons"] for one in missed]),
        "stamps": missed,
    }
    write_json(folder / "real.json", report)
    curves_real.draw(folder / "tpr.png", report["injection"])
    page = render(
        "real.html",
        report=as_json(report),
        lenses=_lenses(pixels, report, ensemble),
        false_positives=_false_positives(pixels, report, ensemble),
        missed=_missed(pixels, missed),
    )
    (folder / "index.html").write_text(page, encoding="utf-8")
    return report


def _lenses(pixels: RealPixels, report: dict[str, Any], ensemble: Ensemble) -> list[Tile]:
    at = {str(name): k for k, name in enumerate(pixels.lenses.frame)}
    rows = [at[one["name"]] for one in report["lenses"]]
    texts = [
        (
            one["name"],
            f"{one['kind']}; score {one['score']:.2f}",
            f"above {100 * one['above']:.1f}% of {one['galaxies']} real galaxies",
        )
        for one in report["lenses"]
    ]
    return _explained(pixels.lenses.images[rows], texts, ensemble)


def _false_positives(pixels: RealPixels, report: dict[str, Any], ensemble: Ensemble) -> list[Tile]:
    found = report["best_false_positives"]
    texts = [
        (f"{one['frame']}: {one['kind']}", f"score {one['score']:.2f}", *one["reasons"])
        for one in found
    ]
    return _explained(pixels.galaxies.images[[one["row"] for one in found]], texts, ensemble)


def _explained(
    images: Float32[np.ndarray, "n band y x"],
    texts: Sequence[tuple[str, ...]],
    ensemble: Ensemble,
) -> list[Tile]:
    """Stamps in colour, each beside its occlusion map."""
    if not len(images):
        return []
    colours = _coloured(images[:, :_COLOUR_BANDS])
    maps = [heat.png(one) for one in _occlusion(images, ensemble)]
    return [
        Tile((picture, drawn), text)
        for picture, drawn, text in zip(colours, maps, texts, strict=True)
    ]


def _occlusion(
    images: Float32[np.ndarray, "n band y x"], ensemble: Ensemble
) -> Float32[np.ndarray, "n y x"]:
    inputs = real_stamps.model_images(images, real_stamps.BANDS, ensemble.inputs)
    largest = max(ensemble.inputs, key=lambda spec: spec.size_pixels)
    patch = max(2, largest.size_pixels // _PATCH)
    masks = square_masks(largest.size_pixels, patch, max(1, patch // 2))
    return occlusion_map(
        lambda asked: ensemble.score(asked, full=True).score, inputs, masks, largest.name
    )


def _missed(pixels: RealPixels, missed: Sequence[dict[str, Any]]) -> list[Tile]:
    """Each beside its arcs alone, on the scale of the stamp."""
    if not missed:
        return []
    rows = [one["row"] for one in missed]
    stamps = pixels.injected.images[rows][:, :_COLOUR_BANDS]
    weights = band_weights(stamps)
    arcs = pixels.injected.arcs[rows][:, :_COLOUR_BANDS]
    noise = stamps - np.median(stamps, axis=(2, 3), keepdims=True)
    sigma = 1.4826 * np.median(np.abs(noise), axis=(2, 3), keepdims=True)
    draw = np.random.default_rng(0)
    # The colour scale comes from a stamp's noise, which painted light has none of.
    bare = arcs + sigma * draw.standard_normal(arcs.shape)
    alone = [stamp_png(asinh_rgb(np.asarray(one, np.float32), weights)) for one in bare]
    texts = [
        (
            f"{one['host']}: score {one['score']:.2f}",
            f"S/N {one['snr']:.0f}, θ_E {one['theta_e_arcsec']:.2f}″",
            *one["reasons"],
        )
        for one in missed
    ]
    return [
        Tile((picture, drawn), text)
        for picture, drawn, text in zip(_coloured(stamps, weights), alone, texts, strict=True)
    ]


def _coloured(
    images: Float32[np.ndarray, "n band y x"], weights: Float64[np.ndarray, " band"] | None = None
) -> list[str]:
    used = band_weights(images) if weights is None else weights
    return [stamp_png(asinh_rgb(image, used)) for image in images]
