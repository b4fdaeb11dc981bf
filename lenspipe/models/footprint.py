"""How many rows a CPU takes at once: as many as leave a network's feature maps in its caches.

Operators that do little with each value wait for memory once a batch's largest feature map is
larger than the caches: ELU networks lose a third of their rate between 4 rows and 64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import onnx

CACHE_BYTES = 6 << 20
MOST_ROWS = 64
LEAST_ROWS = 4  # the weights of dense layers are read once for a batch


def cpu_batch_size(paths: Sequence[str | Path]) -> int:
    """Rows of a batch that suit all these networks (ONNX files): a power of two."""
    largest = max((largest_map_bytes(onnx.load(str(path))) for path in paths), default=0)
    if not largest:
        return MOST_ROWS
    rows: int = 2 ** int(math.log2(max(1.0, CACHE_BYTES / largest)))
    return min(MOST_ROWS, max(LEAST_ROWS, rows))


def largest_map_bytes(model: onnx.ModelProto) -> int:
    """Bytes of one row of the largest float32 tensor between the operators, as far as shapes say;
    0 where they say nothing. The first axis is the batch."""
    graph = model.graph
    if not graph.value_info:
        graph = onnx.shape_inference.infer_shapes(model).graph
    sizes = [0]
    for value in graph.value_info:
        axes = value.type.tensor_type.shape.dim
        fixed = [axis.dim_value for axis in axes[1:]]
        if len(axes) > 1 and not axes[0].HasField("dim_value") and all(fixed):
            sizes.append(4 * math.prod(fixed))
    return int(max(sizes))
