"""Which pixels of a stamp spoke for a lens: occlusion maps of a trained network."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lenspipe.errors import InputError
from lenspipe.models.explain import occlusion_map, square_masks
from training.data import Examples
from training.export import onnx_logits


def draw_maps(graph: Path, test: Examples, rows: int, path: Path) -> Path:
    """A picture of the first `rows` lenses and as many others, each stamp above its map.

    The map is the drop of the logit when a square of an eighth of the stamp is hidden.
    """
    from matplotlib.figure import Figure

    if test.spec is None:
        raise InputError("task", "lens_finding: photometry has no pixels", "photometry")
    if not graph.exists():
        raise InputError("explain", "a trained network (python -m training train)", "none")
    chosen = np.concatenate(
        [np.flatnonzero(test.positive)[:rows], np.flatnonzero(~test.positive)[:rows]]
    )
    stamps = np.ascontiguousarray(test.inputs[chosen])
    patch = max(2, test.spec.size_pixels // 8)
    maps = occlusion_map(
        lambda images: onnx_logits(graph, images["image"]),
        {"image": stamps},
        square_masks(test.spec.size_pixels, patch, max(1, patch // 2)),
        "image",
    )
    figure = Figure(figsize=(1.5 * len(chosen), 3.4), layout="constrained")
    axes = figure.subplots(2, len(chosen), squeeze=False)
    reach = float(np.abs(maps).max()) or 1.0
    for k, row in enumerate(chosen):
        total = stamps[k].sum(axis=0)
        axes[0, k].imshow(np.arcsinh(total / (np.median(np.abs(total)) + 1e-9)), cmap="gray")
        axes[0, k].set_title(str(test.kinds[row]), fontsize=8)
        axes[1, k].imshow(maps[k], cmap="RdBu_r", vmin=-reach, vmax=reach)
    for panel in axes.flat:
        panel.set_axis_off()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    return path
