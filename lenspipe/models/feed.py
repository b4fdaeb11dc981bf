"""How a session is fed: straight from numpy on the CPU, through device buffers on a GPU.

A feed has one or two slots, each with buffers for one batch. A slot is filled by `stage` and run by
`run`; with two of them the next batch is made and uploaded while the device works on this one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol, TypeVar

import numpy as np
import onnxruntime

from lenspipe.models import cuda, providers

T = TypeVar("T")
S = TypeVar("S")
Arrays = Mapping[str, np.ndarray]


class Feed(Protocol):
    """A session with buffers for batches of one size; input names are the graph's."""

    @property
    def slots(self) -> int:
        """Batches that can be held at once."""
        ...

    def buffers(self, slot: int, /) -> Arrays:
        """Host arrays (batch, …) of a slot, in the graph's types, to be filled."""
        ...

    def stage(self, slot: int, batch: Arrays, /) -> None:
        """Bring a batch to the device: the slot's buffers, or other arrays like them."""
        ...

    def run(self, slot: int, /) -> np.ndarray:
        """The output for what was staged last in the slot, on the CPU."""
        ...


Specs = Mapping[str, tuple[tuple[int, ...], np.dtype]]  # input -> shape with batch, type


def make_feed(
    session: onnxruntime.InferenceSession,
    output: str,
    specs: Specs,
    provider: str,
    device_id: int,
) -> Feed:
    """The feed for a provider."""
    options = onnxruntime.RunOptions()
    options.log_severity_level = 4  # every failure is raised; it need not be printed too
    if providers.on_gpu(provider):
        return DeviceFeed(session, output, specs, options, "cuda", device_id)
    return HostFeed(session, output, specs, options)


class HostFeed:
    """Runs on numpy arrays where they lie. One slot: the CPU cannot do two things at once."""

    slots = 1

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        output: str,
        specs: Specs,
        options: onnxruntime.RunOptions,
    ) -> None:
        self._session = session
        self._output = output
        self._options = options
        self._buffers = {name: np.zeros(*spec) for name, spec in specs.items()}
        self._staged: Arrays = self._buffers

    def buffers(self, _slot: int) -> Arrays:
        """See `Feed`."""
        return self._buffers

    def stage(self, _slot: int, batch: Arrays) -> None:
        """Nothing is copied."""
        self._staged = batch

    def run(self, _slot: int) -> np.ndarray:
        """See `Feed`."""
        return np.asarray(self._session.run([self._output], self._staged, self._options)[0])


class DeviceFeed:
    """Runs through buffers that stay allocated on the device, two of each.

    Uploads come from page-locked arrays. `update_inplace` returns when the copy is done, so `run`
    never meets a half-filled buffer; it holds the interpreter's lock, `run` does not, so a thread
    may stage one slot while another runs the other. device: `cuda`, or `cpu` to have the same path
    without a GPU.
    """

    slots = 2

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        output: str,
        specs: Specs,
        options: onnxruntime.RunOptions,
        device: str,
        device_id: int,
    ) -> None:
        self._session = session
        self._options = options
        make = onnxruntime.OrtValue.ortvalue_from_shape_and_type
        self._host: list[dict[str, np.ndarray]] = []
        self._device: list[dict[str, onnxruntime.OrtValue]] = []
        self._bindings: list[onnxruntime.IOBinding] = []
        for _ in range(self.slots):
            self._host.append({name: np.zeros(*spec) for name, spec in specs.items()})
            self._device.append(
                {n: make(shape, kind.type, device, device_id) for n, (shape, kind) in specs.items()}
            )
            self._bindings.append(session.io_binding())
            self._bindings[-1].bind_output(output, "cpu")
            for name, value in self._device[-1].items():
                self._bindings[-1].bind_ortvalue_input(name, value)
        arrays = [array for slot in self._host for array in slot.values()]
        locked = [device == "cuda" and cuda.page_lock(array, device_id) for array in arrays]
        self.page_locked = all(locked)

    def buffers(self, slot: int) -> Arrays:
        """See `Feed`."""
        return self._host[slot]

    def stage(self, slot: int, batch: Arrays) -> None:
        """See `Feed`."""
        for name, array in batch.items():
            self._device[slot][name].update_inplace(array)

    def run(self, slot: int) -> np.ndarray:
        """See `Feed`."""
        self._session.run_with_iobinding(self._bindings[slot], self._options)
        return np.asarray(self._bindings[slot].copy_outputs_to_cpu()[0])


def ahead(make: Callable[[S], T], items: Iterable[S], overlap: bool) -> Generator[T, None, None]:
    """`make` of every item in order; with `overlap` the next is made while the caller uses one.

    What `make` raises is raised where its item's turn is. Closing the generator waits for what is
    being made.
    """
    if not overlap:
        yield from map(make, items)
        return
    pending: deque[Future[T]] = deque()
    with ThreadPoolExecutor(1, thread_name_prefix="stage") as pool:
        for item in items:
            pending.append(pool.submit(make, item))
            if len(pending) > 1:
                # Out of the queue first: a future that raised, held by the frame of its own
                # traceback, would keep what that names (device buffers) until a collection.
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
