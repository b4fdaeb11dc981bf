"""A shipped network in int8 for CPUs: weights and feature maps in 8 bits, pixels as they were.

    python -m training.quantise ps1-resnet ps1-resnet-int8.onnx --stamps SET.h5

Static post-training quantisation (Jacob et al. 2018, arXiv:1712.05877) by ONNX Runtime: each
feature map gets a scale from the range that it has on stamps of the training distribution, weights
one scale per channel. The normalisation stays in float32, since a flux has a range that 8 bits have
not, and so does the last layer, since a logit of 256 levels would tie the best candidates.

Feature maps are unsigned, weights signed: what processors with VNNI or AMX multiply in one
instruction. Older ones (AVX2 alone) saturate in between and give other logits, which the self-test
in the card then says.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from jaxtyping import Bool, Float, Float32
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from lenspipe.errors import InputError
from lenspipe.models import self_test
from lenspipe.models.card import METADATA_KEY, read_card, write_card
from lenspipe.models.locate import find
from training.half import example_stamps, largest_difference, normalising, noted
from training.metrics import Curve, Unsupported, allowed_false_positives
from training.recipe import RangeMethod

# Not ONNX Runtime's `Entropy`: `quantize_static` gives it 128 bins for 128 levels and takes no
# other numbers, which leaves one range to choose, the whole: it is `MinMax` by another name.
Method = RangeMethod
METHODS: Mapping[Method, CalibrationMethod] = {
    "minmax": CalibrationMethod.MinMax,
    "percentile": CalibrationMethod.Percentile,
}
# Layers with weights, and what lies between them and would otherwise go back to float32.
QUANTISED = ["Add", "AveragePool", "Concat", "Conv", "Gemm", "GlobalAveragePool", "MatMul"]
QUANTISED += ["MaxPool", "Relu"]
CALIBRATION_ROWS = 512
_BATCH = 64
# Self-test elsewhere: a value that falls on the edge of a step may round the other way, and such
# steps add up over the layers. Far below what a saturating processor does.
TOLERANCE = 0.3
# What int8 may cost: of the area under the ROC curve, and of the TPR at the stated FPR. A gain is
# luck of the rounding and counts for nothing.
AUROC_LOSS = 0.001
TPR_LOSS = 0.01
RULE = (
    "one-sided: AUROC may fall by {auroc:g} and TPR at FPR {fpr:g} by {tpr:g}; a rise, however "
    "large, refuses nothing"
)


class _Stamps(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
    """The stamps in batches, as the calibration asks for them."""

    def __init__(self, images: Mapping[str, np.ndarray]) -> None:
        self._batches = self._cut(images)

    @staticmethod
    def _cut(images: Mapping[str, np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
        rows = len(next(iter(images.values())))
        for start in range(0, rows, _BATCH):
            yield {name: pixels[start : start + _BATCH] for name, pixels in images.items()}

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next batch, None after the last."""
        return next(self._batches, None)


def quantise(
    source: Path,
    images: Mapping[str, Float32[np.ndarray, "n band y x"]],
    method: Method = "percentile",
) -> onnx.ModelProto:
    """The network of `source` with 8-bit layers, calibrated on `images`: input name -> stamps.

    method: range of a feature map's 8 bits: `minmax` all that was seen, `percentile` all but the
    one value in 10⁵ that is largest, signs apart.
    """
    if method not in METHODS:
        raise InputError("method", f"one of {', '.join(METHODS)}", repr(method))
    with TemporaryDirectory(prefix="lenspipe-int8-") as folder, redirect_stdout(StringIO()):
        plain, out = Path(folder, "plain.onnx"), Path(folder, "int8.onnx")
        # Folds constants, and BatchNormalization into the convolution before it.
        quant_pre_process(str(source), str(plain), skip_symbolic_shape=True)
        quantize_static(
            str(plain),
            str(out),
            _Stamps(images),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=QUANTISED,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=_kept(onnx.load(str(plain)).graph),
            calibrate_method=METHODS[method],
        )
        return onnx.load(str(out))


def _kept(graph: onnx.GraphProto) -> list[str]:
    """Nodes that stay in float32: the normalisation and the last layer with weights."""
    layers = [node for node in graph.node if node.op_type in ("Conv", "Gemm", "MatMul")]
    if len(layers) < 2:
        raise InputError("model", "layers before the last, to quantise", f"{len(layers)} in all")
    return [node.name for node in (*normalising(graph), layers[-1])]


def make_int8(
    source: Path,
    out: Path,
    images: Mapping[str, Float32[np.ndarray, "n band y x"]],
    method: Method = "percentile",
) -> float:
    """Write the int8 network of `source` to `out`; returns the largest difference of logits.

    images: stamps of the training distribution, for the ranges and to compare logits on. The
    figures in the card stay those of the float32 network, which the note beside each says.
    """
    card = read_card(source)
    if card.features:
        raise InputError(f"model {source}", "a network that takes images", "photometry")
    model = quantise(source, images, method)
    kept = [entry for entry in model.metadata_props if entry.key == METADATA_KEY]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    named = card.model_copy(update={"name": f"{card.name}-int8", "self_test": None})
    write_card(model, named, out)
    apart = largest_difference(source, out, images)
    rows = len(next(iter(images.values())))
    text = f"of the float32 network; logits of this one are within {apart:.2g} on {rows} stamps"
    update = {
        "metrics": {name: noted(metric, text) for name, metric in named.metrics.items()},
        "description": f"{card.description} In int8 for CPUs, ranges by {method}.".strip(),
    }
    write_card(model, named.model_copy(update=update), out)
    scale = card.self_test.scale if card.self_test else 1.0
    self_test.add(out, scale=scale, tolerance=TOLERANCE)
    return apart


@dataclass(frozen=True)
class Verdict:
    """Whether int8 may ship, and why. rule: by which, in words. auroc, tpr: of float32 and of int8,
    each at its own threshold for `fpr`. fpr_at_threshold: false-positive rate of int8 at float32's
    threshold on this set."""

    accepted: bool
    reason: str
    rule: str
    fpr: float
    auroc: tuple[float, float]
    tpr: tuple[float, float] | None
    fpr_at_threshold: float | None
    n_positives: int
    n_negatives: int

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a report."""
        return asdict(self)


def accept(
    fp32_scores: Float[np.ndarray, " n"],
    int8_scores: Float[np.ndarray, " n"],
    positive: Bool[np.ndarray, " n"],
    fpr: float = 1e-3,
) -> Verdict:
    """int8 ships where, on a test set, it loses no more than `AUROC_LOSS` of float32's AUROC and no
    more than `TPR_LOSS` of the TPR at `fpr`; never where the set is too small to tell.

    The rule is one-sided: only losses count. The set must have chosen nothing of the int8 network,
    neither its ranges nor the method that they follow by.
    """
    curves = [Curve(scores, positive) for scores in (fp32_scores, int8_scores)]
    auroc = curves[0].auroc(), curves[1].auroc()
    wide = auroc[0] - auroc[1] > AUROC_LOSS
    reasons = [f"AUROC falls by more than {AUROC_LOSS}"] if wide else []
    allowed = allowed_false_positives(curves[0].n_negatives, fpr)
    tpr, above = None, None
    if isinstance(allowed, Unsupported):
        reasons.append(f"TPR at FPR {fpr:g} {allowed.reason}")
    else:
        tpr = curves[0].tpr(allowed), curves[1].tpr(allowed)
        threshold = curves[0].threshold(fpr)
        above = float((int8_scores[~positive] > threshold).mean())
        if tpr[0] - tpr[1] > TPR_LOSS:
            reasons.append(f"TPR at FPR {fpr:g} falls by more than {TPR_LOSS}")
    return Verdict(
        accepted=not reasons,
        reason="; ".join(reasons) or "AUROC and TPR within what int8 may cost",
        rule=RULE.format(auroc=AUROC_LOSS, tpr=TPR_LOSS, fpr=fpr),
        fpr=fpr,
        auroc=auroc,
        tpr=tpr,
        fpr_at_threshold=above,
        n_positives=curves[0].n_positives,
        n_negatives=curves[0].n_negatives,
    )


def stamps_of(path: Path | None, source: Path, rows: int = CALIBRATION_ROWS) -> dict[str, Any]:
    """Stamps to calibrate on: of an HDF5 set or an NPZ with one array per input, else drawn ones.

    InputError where the file's stamps are not those that the network takes.
    """
    card = read_card(source)
    if path is None:
        return example_stamps(card, rows)
    if path.suffix == ".npz":
        return {name: pixels[:rows] for name, pixels in np.load(path).items()}
    from training.data import load_images, rows_of

    return rows_of(load_images(path).inputs, slice(rows))


def main() -> None:
    """Convert one network and print how far its logits moved."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="a network's name in the zoo, or a path")
    parser.add_argument("out", type=Path)
    parser.add_argument("--stamps", type=Path, help="HDF5 set, or NPZ with one array per input")
    parser.add_argument("--method", choices=tuple(METHODS), default="percentile")
    options = parser.parse_args()
    source = find(options.model)
    apart = make_int8(source, options.out, stamps_of(options.stamps, source), options.method)
    print(f"{options.out}: largest difference of logits {apart:.3g}")  # noqa: T201  # a command


if __name__ == "__main__":
    main()
