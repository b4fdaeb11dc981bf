"""What an ONNX graph may hold: no other file, no foreign operator, no more than a network has."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx
from google.protobuf.message import Message

from lenspipe.errors import InputError

MAX_BYTES = 2**31 - 1  # what one protobuf message can hold
# The deepest published networks have some thousands; a session of more takes minutes to open.
MAX_NODES = 50_000
# ONNX itself, its classical models, and what every build of ONNX Runtime brings along.
DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})


def check(model: onnx.ModelProto, field: str) -> None:
    """InputError at `field` where the model needs other files, operators that no one knows, or is
    larger than any network."""
    outside = external_tensors(model)
    if outside:
        raise InputError(field, "all weights inside the file", f"{outside[0]} kept outside of it")
    own = {(function.domain, function.name) for function in model.functions}
    for count, node in enumerate(nodes(model), start=1):
        if count > MAX_NODES:
            raise InputError(field, f"at most {MAX_NODES} nodes", "more")
        if node.domain not in DOMAINS and (node.domain, node.op_type) not in own:
            raise InputError(
                field,
                "operators of ONNX and ONNX Runtime",
                f"{node.op_type[:100]} of domain {node.domain[:100]!r}",
            )


def nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """Every node: of the graph, of the model's own functions, and of the graphs inside of nodes."""
    yield from _within(model.graph.node)
    for function in model.functions:
        yield from _within(function.node)


def _within(found: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    for node in found:
        yield node
        for attribute in node.attribute:
            yield from _within(attribute.g.node)
            for inner in attribute.graphs:
                yield from _within(inner.node)


def external_tensors(message: Message) -> list[str]:
    """Names of the tensors, at any depth, whose bytes lie in other files."""
    if isinstance(message, onnx.TensorProto):
        outside = message.data_location == onnx.TensorProto.EXTERNAL or message.external_data
        return [message.name or "a tensor"] if outside else []
    found: list[str] = []
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        parts = [value] if isinstance(value, Message) else value
        found += [name for part in parts for name in external_tensors(part)]
    return found
