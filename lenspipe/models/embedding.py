"""What a network sees in a stamp: the numbers that its last linear layer makes the logit from.

Stamps that a network sees alike lie near one another there, so that one find leads to the next
(the retrieval of Stein et al. 2022, arXiv:2110.00023, with a supervised network's features).
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
from jaxtyping import Float32

from lenspipe.models import providers
from lenspipe.models.card import Output, read_model
from lenspipe.models.encode import encode, image_inputs, input_dtype
from lenspipe.models.ensemble import Ensemble
from lenspipe.models.session import PADDED_TO, Member

MOST_FEATURES = 4096  # of a member; more is no layer that a logit is made from, but a picture
BATCH_ROWS = 256
_LINEAR = frozenset({"Gemm", "MatMul"})
# What may stand between the last linear layer and the output: shapes, types, a bias, quantisation.
_BETWEEN = frozenset(
    {"Squeeze", "Unsqueeze", "Reshape", "Flatten", "Identity", "Cast", "Add", "Mul", "Div"}
    | {"QuantizeLinear", "DequantizeLinear"}
)


def last_features(model: onnx.ModelProto, output: str) -> str | None:
    """Name of the tensor that the last linear layer before `output` reads; None where what is there
    is something else."""
    made_by = {name: node for node in model.graph.node for name in node.output}
    weights = {tensor.name for tensor in model.graph.initializer}
    name = output
    while (node := made_by.get(name)) is not None:
        inputs = [each for each in node.input if each and each not in weights]
        if node.op_type in _LINEAR:
            return inputs[0] if inputs and inputs[0] in made_by else None
        if node.op_type not in _BETWEEN or not inputs:
            return None
        name = inputs[0]
    return None


@dataclass(frozen=True)
class _Eye:
    """A member whose session gives features (n, width)."""

    member: Member
    session: onnxruntime.InferenceSession
    width: int

    def features(self, images: Mapping[str, np.ndarray]) -> Float32[np.ndarray, "n width"]:
        normalised = self.member.normalised(images)
        rows = len(next(iter(normalised.values())))
        finite = np.ones(rows, bool)
        for pixels in normalised.values():
            finite &= np.isfinite(pixels).all(axis=tuple(range(1, pixels.ndim)))
        found = np.full((rows, self.width), np.nan, np.float32)
        whole = np.flatnonzero(finite)
        step = min(BATCH_ROWS, self.member.batch_size)
        for start in range(0, len(whole), step):
            part = whole[start : start + step]
            fed = {key: self._encoded(key, pixels[part]) for key, pixels in normalised.items()}
            # ONNX Runtime's exceptions have no common base. A row that one member raises on was
            # scored or failed long ago: here it, and its batch, are like no other.
            with contextlib.suppress(Exception):
                found[part] = self.session.run(None, fed)[0][: len(part)]
        return found

    def _encoded(self, key: str, pixels: np.ndarray) -> np.ndarray:
        image = image_inputs(self.member.card).get(key)
        rows = -(-len(pixels) // PADDED_TO) * PADDED_TO  # as the member runs its batches
        fed = np.zeros((rows, *pixels.shape[1:]), input_dtype(image))
        encode(pixels, image, fed[: len(pixels)])
        return fed


class Embedding:
    """The features of an ensemble's members side by side. members: (name, width), in their order;
    those without a last linear layer have none. Runs on the CPU."""

    def __init__(self, ensemble: Ensemble, threads: int = 1) -> None:
        self._ensemble = ensemble
        opened = [_open(member, threads) for member in ensemble.members]
        self._eyes = [(column, eye) for column, eye in enumerate(opened) if eye is not None]
        self.members = tuple((eye.member.name, eye.width) for _, eye in self._eyes)

    def __call__(self, images: Mapping[str, np.ndarray]) -> Float32[np.ndarray, "n d"] | None:
        """images: as for `Ensemble.score`. Rows that a member cannot take are NaN there; None where
        no member has features."""
        if not self._eyes:
            return None
        parts = [eye.features(self._ensemble.own(column, images)) for column, eye in self._eyes]
        return np.concatenate(parts, axis=1)


def _open(member: Member, threads: int) -> _Eye | None:
    content, card = read_model(member.path)
    try:
        return _seeing(member, onnx.load_from_string(content), card.outputs, threads)
    # ONNX Runtime's exceptions have no common base. A graph that its own session runs and this one
    # does not has no features, and costs a run nothing else.
    except Exception:
        return None


def _seeing(
    member: Member, model: onnx.ModelProto, outputs: Sequence[Output], threads: int
) -> _Eye | None:
    """The member with a session that gives features (row, feature) instead of a logit."""
    logit = "logit" if any(each.name == "logit" for each in outputs) else outputs[0].name
    name = last_features(model, logit)
    if name is None or any(side.dim_value > 0 for side in _batches(model)):
        return None
    del model.graph.output[:]
    model.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
    options = providers.ProviderOptions()
    session = providers.open_session(
        model.SerializeToString(), "cpu", threads, 0, options, f"model {member.path}"
    )
    width = _width(member, session)
    return None if width is None else _Eye(member, session, width)


def _batches(model: onnx.ModelProto) -> list[onnx.TensorShapeProto.Dimension]:
    """The first axis of what is fed; graphs of old list their weights among the inputs."""
    weights = {tensor.name for tensor in model.graph.initializer}
    fed = [each for each in model.graph.input if each.name not in weights]
    return [each.type.tensor_type.shape.dim[0] for each in fed]


def _width(member: Member, session: onnxruntime.InferenceSession) -> int | None:
    """Features of a row, as zeros tell; None where they are no numbers (row, feature)."""
    images = image_inputs(member.card)
    zeros = {
        key: np.zeros((PADDED_TO, *shape), input_dtype(images.get(key)))
        for key, shape in member.inputs.items()
    }
    found = session.run(None, zeros)[0]
    is_table = found.ndim == 2 and len(found) == PADDED_TO and found.dtype.kind == "f"
    return found.shape[1] if is_table and found.shape[1] <= MOST_FEATURES else None
