"""What a network makes of a stamp before its last layer, read from its ONNX graph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from jaxtyping import Float32

from lenspipe.errors import InputError
from lenspipe.models.encode import encode, input_dtype
from lenspipe.models.ensemble import Ensemble

_DENSE = ("Gemm", "MatMul")
_BATCH = 256


def last_hidden(model: onnx.ModelProto) -> str:
    """Name of the tensor that the last dense layer takes: one vector per stamp.

    InputError where the logit does not come from a dense layer.
    """
    dense = [node for node in model.graph.node if node.op_type in _DENSE]
    if not dense:
        raise InputError("network", f"a last layer that is one of {_DENSE}", "none")
    return str(dense[-1].input[0])


def hidden(
    path: Path, images: Float32[np.ndarray, "n band y x"], threads: int = 1
) -> Float32[np.ndarray, "n feature"]:
    """Vectors before the last layer of the network in `path`, which stays as it is on disk."""
    model = onnx.load(str(path))
    name = last_hidden(model)
    model.graph.output.append(onnx.ValueInfoProto(name=name))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    takes = session.get_inputs()[0].name
    parts = [
        session.run([name], {takes: images[start : start + _BATCH]})[0]
        for start in range(0, len(images), _BATCH)
    ]
    found = np.concatenate(parts)
    return np.asarray(found.reshape(len(found), -1), np.float32)


def committee(
    ensemble: Ensemble, images: dict[str, Float32[np.ndarray, "n band y x"]], threads: int = 1
) -> dict[str, Float32[np.ndarray, "n feature"]]:
    """`hidden` of every member with one image input, by name."""
    found = {}
    for member in ensemble.description.members:
        if len(member.card.images) == 1:
            spec = member.card.images[0]
            pixels = images[member.inputs[spec.name]]
            encoded = np.empty(pixels.shape, input_dtype(spec))
            encode(pixels, spec, encoded)
            found[member.name] = hidden(member.path, encoded, threads)
    return found
