"""What lenspipe asks of the NVIDIA driver itself: devices, their memory, page-locked arrays.

Through ctypes and libcuda, which every machine with such a device has; elsewhere every question has
an answer that means "none". Source: CUDA Driver API reference.
"""

from __future__ import annotations

import ctypes
import threading
import weakref
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

_PORTABLE = 1  # CU_MEMHOSTREGISTER_PORTABLE: locked for every context
_COMPUTE_MAJOR, _COMPUTE_MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*
_CONTEXT = threading.local()


@dataclass(frozen=True)
class Device:
    """A CUDA device. compute: its capability, such as (9, 0)."""

    name: str
    compute: tuple[int, int]
    memory_bytes: int
    driver: int


@cache
def driver() -> Any | None:
    """The driver's library, initialised; None where there is none or it finds no device."""
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    return library if library.cuInit(0) == 0 else None


def devices() -> int:
    """How many CUDA devices this process sees."""
    count = ctypes.c_int(0)
    cuda = driver()
    if cuda is None or cuda.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


def device(index: int) -> Device | None:
    """What device `index` is; None where the driver does not tell."""
    cuda = driver()
    handle, version = ctypes.c_int(0), ctypes.c_int(0)
    if cuda is None or cuda.cuDeviceGet(ctypes.byref(handle), index) != 0:
        return None
    name, memory = ctypes.create_string_buffer(256), ctypes.c_size_t(0)
    major, minor = ctypes.c_int(0), ctypes.c_int(0)
    answers = (
        cuda.cuDeviceGetName(name, len(name), handle),
        cuda.cuDeviceTotalMem_v2(ctypes.byref(memory), handle),
        cuda.cuDeviceGetAttribute(ctypes.byref(major), _COMPUTE_MAJOR, handle),
        cuda.cuDeviceGetAttribute(ctypes.byref(minor), _COMPUTE_MINOR, handle),
        cuda.cuDriverGetVersion(ctypes.byref(version)),
    )
    if any(answers):
        return None
    compute = (major.value, minor.value)
    return Device(name.value.decode(), compute, memory.value, version.value)


def page_lock(array: np.ndarray, index: int) -> bool:
    """Lock the array's memory, so that copies to the device need no staging; undone when it dies.

    False where the driver refuses (none is there, or the limit on locked memory is reached): the
    array serves all the same, at the speed of ordinary memory.
    """
    cuda = driver()
    if cuda is None or array.nbytes == 0 or not _enter_context(cuda, index):
        return False
    address = ctypes.c_void_p(array.ctypes.data)
    if cuda.cuMemHostRegister_v2(address, ctypes.c_size_t(array.nbytes), _PORTABLE) != 0:
        return False
    # A weak reference's callback comes before the memory is given back.
    undo = weakref.finalize(array, _unlock, cuda, index, array.ctypes.data)
    undo.atexit = False  # the driver may be gone by then, and the memory goes with the process
    return True


def _unlock(cuda: Any, index: int, address: int) -> None:
    if _enter_context(cuda, index):
        cuda.cuMemHostUnregister(ctypes.c_void_p(address))


def _enter_context(cuda: Any, index: int) -> bool:
    """Make the device's primary context, the one of ONNX Runtime, this thread's own."""
    if getattr(_CONTEXT, "index", None) == index:
        return True
    handle, context = ctypes.c_int(0), ctypes.c_void_p()
    if cuda.cuDeviceGet(ctypes.byref(handle), index) != 0:
        return False
    if cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), handle) != 0:
        return False
    if cuda.cuCtxSetCurrent(context) != 0:
        return False
    _CONTEXT.index = index
    return True
