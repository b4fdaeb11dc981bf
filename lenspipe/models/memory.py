"""A device or a machine whose memory is short, told from a network that fails."""

from __future__ import annotations

import re

from lenspipe.errors import MemberError

# What ONNX Runtime's allocator, CUDA, cuDNN, cuBLAS and TensorRT say when memory is short. They
# raise it as a general failure, so that the words are all there is to tell it by.
OUT_OF_MEMORY = re.compile(
    r"failed to allocate memory|out of memory|available memory of \d+ is smaller|bad_alloc"
    r"|bad allocation|cudaErrorMemoryAllocation|CU\w+_STATUS_ALLOC_FAILED|OutOfMemory",
    re.IGNORECASE,
)


class OutOfMemoryError(MemberError):
    """A batch did not fit into the device's memory."""


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error of ONNX Runtime or of Python says that memory is short."""
    return isinstance(error, MemoryError) or OUT_OF_MEMORY.search(str(error)) is not None
