"""What a network sees in a stamp: the numbers that its last linear layer makes the logit from.

Stamps that a network sees alike lie near one another there, so that one find leads to the next
(the retrieval of Stein et al. 2022, arXiv:2110.00023, with a supervised network's features).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
from jaxtyping import Float32

from lenspipe.errors import one_line
from lenspipe.models import providers
from lenspipe.models.card import Output, read_model
from lenspipe.models.encode import encode, image_inputs, input_dtype
from lenspipe.models.ensemble import Ensemble
from lenspipe.models.memory import OutOfMemoryError, is_out_of_memory
from lenspipe.models.session import PADDED_TO, Member

MOST_FEATURES = 4096  # of a member; more is no layer that a logit is made from, but a picture
BATCH_ROWS = 256
_FEATURES = "lenspipe_features"
_LINEAR = frozenset({"Gemm", "MatMul"})
# What may stand between the last linear layer and the output: shapes, types, a bias, quantisation.
_BETWEEN = frozenset(
    {"Squeeze", "Unsqueeze", "Reshape", "Flatten", "Identity", "Cast", "Add", "Mul", "Div"}
    | {"QuantizeLinear", "DequantizeLinear"}
)


def last_features(model: onnx.ModelProto, output: str) -> tuple[str, ...]:
    """Names of the tensors that the last linear layer before `output` reads: several where the
    output is the mean of what the same layer makes of several views. None of them where what is
    there is something else."""
    made_by = {name: node for node in model.graph.node for name in node.output}
    weights = {tensor.name for tensor in model.graph.initializer}
    found: list[tuple[str, tuple[str, ...]]] = []  # what a layer reads, and its weights
    for start in _views(output, made_by, weights):
        last = _linear(start, made_by, weights)
        if last is None:
            return ()
        found.append(last)
    return tuple(name for name, _ in found) if len({own for _, own in found}) == 1 else ()


Nodes = Mapping[str, onnx.NodeProto]


def _views(output: str, made_by: Nodes, weights: Set[str]) -> Sequence[str]:
    """The tensors of which `output` is the mean, or itself."""
    name = output
    while (node := made_by.get(name)) is not None and node.op_type in _BETWEEN:
        inputs = _not_weights(node, weights)
        if not inputs:
            break
        name = inputs[0]
    if node is None or node.op_type != "ReduceMean":
        return [output]
    joined = made_by.get(node.input[0])
    if joined is None or joined.op_type != "Concat":
        return [output]
    return list(joined.input)


def _linear(output: str, made_by: Nodes, weights: Set[str]) -> tuple[str, tuple[str, ...]] | None:
    """What the last linear layer before `output` reads, and the names of its weights."""
    name = output
    while (node := made_by.get(name)) is not None:
        inputs = _not_weights(node, weights)
        if node.op_type in _LINEAR:
            own = tuple(each for each in node.input if each not in inputs)
            return (inputs[0], own) if inputs and inputs[0] in made_by else None
        if node.op_type not in _BETWEEN or not inputs:
            return None
        name = inputs[0]
    return None


def _not_weights(node: onnx.NodeProto, weights: Set[str]) -> list[str]:
    return [each for each in node.input if each and each not in weights]


@dataclass
class _Eye:
    """A member whose session gives features (n, width). without: rows so far that have none; why:
    what the first of them that ONNX Runtime refused met."""

    member: Member
    session: onnxruntime.InferenceSession
    width: int
    without: int = 0
    why: str = ""

    def features(self, images: Mapping[str, np.ndarray]) -> Float32[np.ndarray, "n width"]:
        normalised = self.member.normalised(images)
        rows = len(next(iter(normalised.values())))
        finite = np.ones(rows, bool)
        for pixels in normalised.values():
            finite &= np.isfinite(pixels).all(axis=tuple(range(1, pixels.ndim)))
        found = np.full((rows, self.width), np.nan, np.float32)
        whole = np.flatnonzero(finite)
        start, step = 0, min(BATCH_ROWS, self.member.batch_size)
        while start < len(whole):
            part = whole[start : start + step]
            fed = {key: self._encoded(key, pixels[part]) for key, pixels in normalised.items()}
            try:
                found[part] = self.session.run(None, fed)[0][: len(part)]
            # ONNX Runtime's exceptions have no common base. A row that one member raises on was
            # scored or failed long ago: here it, and its batch, are like no other.
            except Exception as error:
                if is_out_of_memory(error) and step > PADDED_TO:  # fewer rows are no smaller batch
                    step //= 2
                    continue
                _raise_if_memory(self.member, error)
                self.why = self.why or one_line(str(error))
            start += step
        self.without += int(np.count_nonzero(~np.isfinite(found).all(axis=1)))
        return found

    def _encoded(self, key: str, pixels: np.ndarray) -> np.ndarray:
        image = image_inputs(self.member.card).get(key)
        rows = -(-len(pixels) // PADDED_TO) * PADDED_TO  # as the member runs its batches
        fed = np.zeros((rows, *pixels.shape[1:]), input_dtype(image))
        encode(pixels, image, fed[: len(pixels)])
        return fed


class Embedding:
    """The features of an ensemble's members side by side. members: (name, width), in their order;
    those without a last linear layer have none. Runs on the CPU.

    told: hears of each member that has none, and why. OutOfMemoryError where memory is short.
    """

    def __init__(
        self,
        ensemble: Ensemble,
        threads: int = 1,
        told: Callable[[str], None] = lambda _line: None,
    ) -> None:
        self._ensemble = ensemble
        self._told = told
        self._eyes: list[tuple[int, _Eye]] = []
        for column, member in enumerate(ensemble.members):
            opened = _open(member, threads)
            if isinstance(opened, _Eye):
                self._eyes.append((column, opened))
            else:
                told(f"candidates are not seen alike by member {member.name}: {opened}")
        self.members = tuple((eye.member.name, eye.width) for _, eye in self._eyes)

    def __call__(self, images: Mapping[str, np.ndarray]) -> Float32[np.ndarray, "n d"] | None:
        """images: as for `Ensemble.score`. Rows that a member cannot take are NaN there; None where
        no member has features."""
        if not self._eyes:
            return None
        parts = [eye.features(self._ensemble.own(column, images)) for column, eye in self._eyes]
        return np.concatenate(parts, axis=1)

    def tell(self) -> None:
        """How many rows a member has no features of, now that all were asked for."""
        for _, eye in self._eyes:
            if eye.without:
                why = eye.why or "values that are not finite"
                self._told(
                    f"{eye.without} candidates are like no other, since member {eye.member.name}"
                    f" has no features of them: {why}"
                )


def _open(member: Member, threads: int) -> _Eye | str:
    """The member with a session that gives features; why it has none."""
    content, card = read_model(member.path)
    try:
        return _seeing(member, onnx.load_from_string(content), card.outputs, threads)
    # ONNX Runtime's exceptions have no common base. A graph that its own session runs and this one
    # does not has no features, and costs a run nothing else.
    except Exception as error:
        _raise_if_memory(member, error)
        return one_line(str(error))


def _raise_if_memory(member: Member, error: Exception) -> None:
    """OutOfMemoryError where that is what an error says: no graph and no row is at fault."""
    if is_out_of_memory(error):
        raise OutOfMemoryError(f"{member.name}: {one_line(str(error)) or 'no memory'}") from error


def _seeing(
    member: Member, model: onnx.ModelProto, outputs: Sequence[Output], threads: int
) -> _Eye | str:
    """The member with a session that gives features (row, feature) instead of a logit; why there
    is none."""
    logit = "logit" if any(each.name == "logit" for each in outputs) else outputs[0].name
    names = last_features(model, logit)
    if not names:
        return "its logit is made by no linear layer"
    if any(side.dim_value > 0 for side in _batches(model)):
        return "its graph has a fixed batch"
    del model.graph.output[:]
    # The mean of the views' features is what the layer makes the mean of their logits from.
    model.graph.node.append(onnx.helper.make_node("Mean", names, [_FEATURES]))
    model.graph.output.append(onnx.helper.make_empty_tensor_value_info(_FEATURES))
    options = providers.ProviderOptions()
    session = providers.open_session(
        model.SerializeToString(), "cpu", threads, 0, options, f"model {member.path}"
    )
    width = _width(member, session)
    if width is None:
        return f"its last layer reads no table of at most {MOST_FEATURES} numbers a row"
    return _Eye(member, session, width)


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
