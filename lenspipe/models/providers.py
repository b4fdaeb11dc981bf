"""Execution providers of ONNX Runtime: chosen by name, and never another than the one asked for."""

from __future__ import annotations

import ctypes
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast, get_args

import onnx
import onnxruntime

from lenspipe.contracts import ProviderName
from lenspipe.errors import InputError, ProviderError
from lenspipe.models import cuda

RUNTIME_NAMES = {
    "cpu": "CPUExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "openvino_bf16": "OpenVINOExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
# Arithmetic of OpenVINO's networks: bfloat16 has 8 bits, and units of its own on newer CPUs.
_OPENVINO_PRECISION = {"openvino": "f32", "openvino_bf16": "bf16"}

# What a process takes of a device before the first tensor: context, kernels, cuDNN, cuBLAS.
CONTEXT_BYTES = 600 * 1024**2
LEAST_BYTES = 64 * 1024**2


@dataclass(frozen=True)
class ProviderOptions:
    """Settings of the GPU providers. fp16: TensorRT may round to half precision.

    tf32: CUDA may round products to 10 bits; off, so that CPU and GPU agree to float32.
    engine_cache: folder where TensorRT keeps the engines that it built (minutes each).
    memory_bytes: most that one session may take of the device; None: all that is there.
    batch_rows: rows of every batch, for OpenVINO, which compiles a network for one shape.
    """

    fp16: bool = False
    tf32: bool = False
    engine_cache: str | None = None
    memory_bytes: int | None = None
    batch_rows: int | None = None


def on_gpu(provider: str) -> bool:
    """Whether a provider that was chosen computes on a device with a memory of its own."""
    return provider in {"cuda", "tensorrt"}


def memory_share(share: float, sessions: int, device_id: int = 0) -> int | None:
    """Memory of one of `sessions` sessions of a process that has `share` of a device.

    None where the device is the process's alone, or tells nothing of its memory.
    """
    found = cuda.device(device_id) if share < 1.0 else None
    if found is None:
        return None
    ours = int(found.memory_bytes * share) - CONTEXT_BYTES
    return max(LEAST_BYTES, ours // sessions)


def engine_versions() -> str:
    """What TensorRT's engines depend on beside the network: no other version reads them."""
    found = cuda.device(0)
    try:
        tensorrt = str(ctypes.CDLL("libnvinfer.so.10").getInferLibVersion())
    except OSError:
        tensorrt = "none"
    return f"onnxruntime {onnxruntime.__version__}, tensorrt {tensorrt}, {found and found.driver}"


def parse_provider(text: str) -> ProviderName:
    """A provider's name from the command line; InputError lists them."""
    for name in get_args(ProviderName):
        if text == name:
            return cast(ProviderName, name)
    raise InputError("provider", f"one of {', '.join(get_args(ProviderName))}", repr(text))


def default_batch_size(provider: str) -> int:
    """Rows of a batch where nobody says: a short last batch wastes little, or a GPU is full."""
    return 512 if on_gpu(provider) else 64


def choose(provider: ProviderName) -> str:
    """`auto` resolved: `cuda` where ONNX Runtime has it and a device is there, else `cpu`."""
    if provider != "auto":
        return provider
    has_cuda = RUNTIME_NAMES["cuda"] in onnxruntime.get_available_providers()
    return "cuda" if has_cuda and cuda_devices() > 0 else "cpu"


def cuda_devices() -> int:
    """How many CUDA devices this process sees, by the driver; 0 without a driver."""
    return cuda.devices()


def open_session(
    model: bytes, provider: str, threads: int, device_id: int, options: ProviderOptions, field: str
) -> onnxruntime.InferenceSession:
    """A session of which the first provider is the one asked for; ProviderError otherwise.

    InputError at `field` where the graph is none that the CPU can run.

    ONNX Runtime falls back to the CPU with no more than a message where a GPU provider cannot
    start: both of its fall-backs are switched off and the result is looked at.
    """
    _require(provider)
    settings = _session_options(threads)
    if provider in _OPENVINO_PRECISION and options.batch_rows is not None:
        for name in _batch_names(model):
            settings.add_free_dimension_override_by_name(name, options.batch_rows)
    try:
        session = onnxruntime.InferenceSession(
            model,
            sess_options=settings,
            providers=_provider_list(provider, device_id, options, threads),
            enable_fallback=False,
        )
    # ONNX Runtime's exceptions have no common base but Exception.
    except Exception as error:
        if provider == "cpu":
            raise InputError(field, "a graph that ONNX Runtime runs", error) from error
        raise ProviderError(f"provider {provider}: {field}: {error}") from error
    session.disable_fallback()
    require_provider(session, provider)
    return session


def require_provider(session: onnxruntime.InferenceSession, provider: str) -> None:
    """ProviderError where the session's first provider is not `provider`."""
    found = session.get_providers()
    if found[0] != RUNTIME_NAMES[provider]:
        raise ProviderError(f"provider {provider}: ONNX Runtime gave {', '.join(found)}")


def _require(provider: str) -> None:
    available = onnxruntime.get_available_providers()
    if RUNTIME_NAMES[provider] not in available:
        raise ProviderError(
            f"provider {provider}: this onnxruntime {onnxruntime.__version__} has only {available}"
        )
    if not on_gpu(provider):
        return
    if cuda_devices() == 0:
        raise ProviderError(f"provider {provider}: no CUDA device is visible to this process")
    # CUDA and cuDNN that pip installed are found only when they are loaded beforehand.
    onnxruntime.preload_dlls()


def _batch_names(model: bytes) -> set[str]:
    """What the graph calls the first axis of its inputs. None where it has no name in some input,
    or means another axis too: such a graph is compiled as it is, for any length."""
    graph = onnx.load_model_from_string(model).graph
    axes = [[axis.dim_param for axis in v.type.tensor_type.shape.dim] for v in graph.input]
    first = {names[0] for names in axes if names}
    others = {name for names in axes for name in names[1:]}
    return set() if "" in first or first & others else first


def _session_options(threads: int) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Threads that spin while idle take the CPU from the threads that read the next pixels.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return options


def _provider_list(
    provider: str, device_id: int, options: ProviderOptions, threads: int = 1
) -> list[Any]:
    """Providers in order of preference, with their options; later ones take single operators."""
    cpu: list[Any] = [RUNTIME_NAMES["cpu"]]
    if provider == "cpu":
        return cpu
    if provider in _OPENVINO_PRECISION:
        return [(RUNTIME_NAMES[provider], _openvino_options(provider, threads)), *cpu]
    given = {"device_id": str(device_id), "use_tf32": str(int(options.tf32))}
    if options.memory_bytes is not None:
        # Doubling the arena, the default, would overshoot a small share.
        given["gpu_mem_limit"] = str(options.memory_bytes)
        given["arena_extend_strategy"] = "kSameAsRequested"
    on_cuda = (RUNTIME_NAMES["cuda"], given)
    if provider == "cuda":
        return [on_cuda, *cpu]
    tensorrt = {"device_id": str(device_id), "trt_fp16_enable": str(options.fp16)}
    if options.memory_bytes is not None:
        tensorrt["trt_max_workspace_size"] = str(options.memory_bytes // 2)
    if options.engine_cache is not None:
        tensorrt["trt_engine_cache_enable"] = "True"
        tensorrt["trt_engine_cache_path"] = options.engine_cache
    return [(RUNTIME_NAMES["tensorrt"], tensorrt), on_cuda, *cpu]


def _openvino_options(provider: str, threads: int) -> Mapping[str, str]:
    """One stream: the batches of a process come one after another. No pinning: the threads of all
    scorers would be pinned to the same cores, and halve the rate of two.
    """
    device = {
        "INFERENCE_PRECISION_HINT": _OPENVINO_PRECISION[provider],
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "ENABLE_CPU_PINNING": False,
    }
    return {"device_type": "CPU", "load_config": json.dumps({"CPU": device})}
