"""Which pixels of a stamp spoke for a lens: occlusion maps of a trained network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from lenspipe.errors import InputError
from lenspipe.models.explain import occlusion_map, square_masks
from training.data import Examples, Inputs, rows_of
from training.export import onnx_logits

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_maps(graph: Path, test: Examples, rows: int, path: Path) -> Path:
    """A picture of the first `rows` lenses and as many others, each stamp above its map.

    The map is the drop of the logit when a square of an eighth of the stamp is hidden, in parts of
    its own largest change, which stands above it. Of several inputs each has its rows of stamps and
    maps.
    """
    from matplotlib.figure import Figure

    if not test.specs:
        raise InputError("task", "lens_finding: photometry has no pixels", "photometry")
    if not graph.exists():
        raise InputError("explain", "a trained network (python -m training train)", "none")
    chosen = np.concatenate(
        [np.flatnonzero(test.positive)[:rows], np.flatnonzero(~test.positive)[:rows]]
    )
    stamps = {k: np.ascontiguousarray(v) for k, v in rows_of(test.inputs, chosen).items()}
    maps = {name: _maps(graph, stamps, name) for name in stamps}
    figure = Figure(figsize=(1.5 * len(chosen), 3.4 * len(stamps)), layout="constrained")
    axes = figure.subplots(2 * len(stamps), len(chosen), squeeze=False)
    for j, name in enumerate(stamps):
        _draw_input(figure, axes[2 * j : 2 * j + 2], stamps[name], maps[name])
    for panel, kind in zip(axes[0], test.kinds[chosen], strict=True):
        panel.set_title(str(kind), fontsize=8)
    for panel in axes.flat:
        panel.set_axis_off()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    return path


def _maps(graph: Path, stamps: Inputs, name: str) -> Float[np.ndarray, "n y x"]:
    size = stamps[name].shape[-1]
    patch = max(2, size // 8)
    masks = square_masks(size, patch, max(1, patch // 2))
    maps: Float[np.ndarray, "n y x"] = occlusion_map(
        lambda images: onnx_logits(graph, images), stamps, masks, name
    )
    return maps


def _draw_input(
    figure: Figure,
    axes: np.ndarray,
    stamps: Float[np.ndarray, "n band y x"],
    maps: Float[np.ndarray, "n y x"],
) -> None:
    """One input of each source above its map, on two rows of panels, and what the colours say."""
    scaled, reach = own_scales(maps)
    for k, total in enumerate(stamps.sum(axis=1)):
        axes[0, k].imshow(np.arcsinh(total / (np.median(np.abs(total)) + 1e-9)), cmap="gray")
        drawn = axes[1, k].imshow(scaled[k], cmap="RdBu_r", vmin=-1.0, vmax=1.0)
        axes[1, k].set_title(f"± {reach[k]:.2g}", fontsize=8)
    bar = figure.colorbar(drawn, ax=list(axes[1]), ticks=[-1.0, 0.0, 1.0], pad=0.01)
    bar.ax.set_yticklabels(["spoke against a lens", "neither", "spoke for a lens"], fontsize=8)
    bar.set_label("±: change of the logit", fontsize=8)


def own_scales(
    maps: Float[np.ndarray, "n y x"],
) -> tuple[Float[np.ndarray, "n y x"], Float[np.ndarray, " n"]]:
    """Each map in parts of its own largest change of the logit, and that change: on one scale for
    all, one strong map leaves the others white."""
    reach = np.abs(maps).max(axis=(1, 2))
    return maps / np.where(reach > 0, reach, 1.0)[:, None, None], reach
