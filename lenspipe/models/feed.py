"""How a session is fed: straight from numpy on the CPU, through device buffers on a GPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnxruntime

Runner = Callable[[Mapping[str, np.ndarray]], np.ndarray]


def make_runner(
    session: onnxruntime.InferenceSession, output: str, provider: str, device_id: int
) -> Runner:
    """A function from a feed of numpy arrays to the logits on the CPU."""
    options = onnxruntime.RunOptions()
    options.log_severity_level = 4  # every failure is raised; it need not be printed too
    if provider == "cpu":
        return lambda feed: np.asarray(session.run([output], feed, options)[0])
    return DeviceRunner(session, output, device_id, options)


class DeviceRunner:
    """Runs on a GPU through buffers that stay allocated on it; ONNX Runtime synchronises."""

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        output: str,
        device_id: int,
        options: onnxruntime.RunOptions,
    ) -> None:
        self._session = session
        self._options = options
        self._device_id = device_id
        self._binding = session.io_binding()
        self._binding.bind_output(output, "cpu")
        self._on_device: dict[str, onnxruntime.OrtValue] = {}

    def __call__(self, feed: Mapping[str, np.ndarray]) -> np.ndarray:
        """Input name -> batch of the fixed size; returns the output on the CPU."""
        for name, array in feed.items():
            self._upload(name, np.ascontiguousarray(array, np.float32))
        self._session.run_with_iobinding(self._binding, self._options)
        return np.asarray(self._binding.copy_outputs_to_cpu()[0])

    def _upload(self, name: str, array: np.ndarray) -> None:
        if name not in self._on_device:
            value = onnxruntime.OrtValue.ortvalue_from_numpy(array, "cuda", self._device_id)
            self._binding.bind_ortvalue_input(name, value)
            self._on_device[name] = value
        self._on_device[name].update_inplace(array)
