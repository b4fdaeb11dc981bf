"""One network in ONNX Runtime: pixels in, logits out, in batches of one fixed size."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime
from jaxtyping import Bool, Float32

from lenspipe.contracts import InputSpec
from lenspipe.errors import InputError, MemberError
from lenspipe.models import normalise, providers
from lenspipe.models.card import ModelCard, read_model
from lenspipe.models.feed import make_runner
from lenspipe.models.providers import ProviderName, ProviderOptions

FEATURES = "features"  # key under which `predict` takes a photometry network's input


class Member:
    """A network that is ready to run. One thread at a time: its batch buffers are reused.

    card, path, sha256 (of the whole file), provider (the one in use), batch_size, and inputs:
    key of `predict` -> shape without the batch.
    """

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        card: ModelCard,
        *,
        path: Path,
        sha256: str,
        provider: str,
        batch_size: int,
        device_id: int,
    ) -> None:
        self.card = card
        self.path = path
        self.sha256 = sha256
        self.provider = provider
        self.inputs = input_shapes(card)
        self._graph_names = _check_inputs(session, card, path)
        self._output = _check_output(session, card, path)
        self.batch_size = _fixed_batch(session) or batch_size
        self._normalise = card.normalisation
        self._buffers = {
            key: np.zeros((self.batch_size, *shape), np.float32)
            for key, shape in self.inputs.items()
        }
        self._runner = make_runner(session, self._output, provider, device_id)

    @classmethod
    def load(
        cls,
        path: str | Path,
        provider: ProviderName = "auto",
        threads: int = 1,
        batch_size: int = 256,
        device_id: int = 0,
        options: ProviderOptions | None = None,
    ) -> Member:
        """Open a network and run it once on zeros.

        threads: of one operator (ONNX Runtime's intra-op). InputError where file, card and graph do
        not agree; ProviderError where the provider is not to be had.
        """
        content, card = read_model(path)
        check_normalisation(card, str(path))
        chosen = providers.choose(provider)
        session = providers.open_session(
            content, chosen, threads, device_id, options or ProviderOptions(), f"model {path}"
        )
        member = cls(
            session,
            card,
            path=Path(path),
            sha256=hashlib.sha256(content).hexdigest(),
            provider=chosen,
            batch_size=batch_size,
            device_id=device_id,
        )
        member.warm_up()
        return member

    @property
    def name(self) -> str:
        """The card's name."""
        return self.card.name

    @property
    def image_inputs(self) -> tuple[InputSpec, ...]:
        """What the network wants to see; empty for a photometry network."""
        return tuple(image.spec() for image in self.card.images)

    def warm_up(self) -> None:
        """Run one batch of zeros. MemberError where that fails, so that no row is at fault."""
        for buffer in self._buffers.values():
            buffer[:] = 0.0
        self._run(self._buffers)

    def predict(self, images: Mapping[str, np.ndarray]) -> Float32[np.ndarray, " n"]:
        """Logit per row of `images`: input name -> (n, band, y, x), or `features` -> (n, feature).

        A row with a value that is not finite gives NaN. MemberError where the network raises.
        """
        arrays = self._validated(images)
        rows = len(next(iter(arrays.values())))
        logits = np.empty(rows, np.float32)
        for start in range(0, rows, self.batch_size):
            part = {key: array[start : start + self.batch_size] for key, array in arrays.items()}
            finite = _finite_rows(part)
            found = self._run(self._normalised(self._filled(part, finite)))[: len(finite)]
            logits[start : start + len(finite)] = np.where(finite, found, np.nan)
        return logits

    def _validated(self, images: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        arrays = {}
        for key, shape in self.inputs.items():
            if key not in images:
                raise InputError(f"{self.name}: input {key}", "an array", "none")
            array = np.asarray(images[key])
            if array.shape[1:] != shape or array.dtype != np.float32:
                raise InputError(
                    f"{self.name}: input {key}",
                    f"(n, {', '.join(map(str, shape))}) of float32",
                    f"{array.shape} {array.dtype}",
                )
            arrays[key] = array
        lengths = {len(array) for array in arrays.values()}
        if len(lengths) != 1:
            raise InputError(f"{self.name}: inputs", "as many rows in each", sorted(lengths))
        return arrays

    def _filled(
        self, part: Mapping[str, np.ndarray], finite: Bool[np.ndarray, " k"]
    ) -> Mapping[str, np.ndarray]:
        """A batch of the fixed size: the rows themselves where they are one, else the buffers, in
        which rows that are missing or not finite are zeros."""
        whole = len(finite) == self.batch_size and bool(finite.all())
        if whole and all(array.flags.c_contiguous for array in part.values()):
            return part
        for key, array in part.items():
            buffer = self._buffers[key]
            buffer[: len(finite)] = array
            buffer[: len(finite)][~finite] = 0.0
            buffer[len(finite) :] = 0.0
        return self._buffers

    def _normalised(self, batch: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """What the card asks for outside the graph."""
        if self._normalise is None or self._normalise.in_graph:
            return batch
        name, parameters = self._normalise.name, self._normalise.parameters
        return {key: normalise.apply(name, parameters, a, np) for key, a in batch.items()}

    def _run(self, batch: Mapping[str, np.ndarray]) -> Float32[np.ndarray, " batch"]:
        feed = {self._graph_names[key]: array for key, array in batch.items()}
        try:
            found = self._runner(feed)
        # ONNX Runtime's exceptions have no common base but Exception.
        except Exception as error:
            raise MemberError(f"{self.name}: {' '.join(str(error).split())[:300]}") from error
        if found.size != self.batch_size:
            raise InputError(
                f"{self.name}: output {self._output}",
                f"one logit per row ({self.batch_size})",
                found.shape,
            )
        return np.asarray(found, np.float32).reshape(self.batch_size)


def input_shapes(card: ModelCard) -> dict[str, tuple[int, ...]]:
    """Key of `Member.predict` -> shape without the batch."""
    if card.features:
        return {FEATURES: (len(card.features),)}
    return {image.name: image.spec().shape for image in card.images}


def check_normalisation(card: ModelCard, path: str) -> None:
    """InputError where the card names a normalisation that is unknown or wrongly set."""
    if card.normalisation is None:
        return
    try:
        parsed = normalise.parse(card.normalisation.name, card.normalisation.parameters)
        for image in card.images:
            parsed.check_bands(len(image.bands))
    except InputError as error:
        raise InputError(
            f"model {path}: card.{error.field}", error.expected, error.found
        ) from error


def _finite_rows(part: Mapping[str, np.ndarray]) -> Bool[np.ndarray, " k"]:
    """Rows of which every value is finite. A sum over the row tells most at once: it is finite
    only where all its values are; where it is not, the values themselves are looked at."""
    finite = np.ones(len(next(iter(part.values()))), bool)
    for array in part.values():
        flat = array.reshape(len(array), -1)
        with np.errstate(over="ignore", invalid="ignore"):
            doubtful = np.flatnonzero(~np.isfinite(flat.sum(axis=1)))
        finite[doubtful] &= np.isfinite(flat[doubtful]).all(axis=1)
    return finite


def _check_inputs(
    session: onnxruntime.InferenceSession, card: ModelCard, path: Path
) -> dict[str, str]:
    """Key of `predict` -> name in the graph; InputError where card and graph do not agree.

    A photometry network has one input, whatever the graph calls it.
    """
    wanted = input_shapes(card)
    found = {node.name: node for node in session.get_inputs()}
    names = {key: key for key in wanted}
    if FEATURES in wanted and len(found) == 1:
        names = {FEATURES: next(iter(found))}
    if set(names.values()) != set(found):
        raise InputError(f"model {path}: inputs", ", ".join(sorted(wanted)), ", ".join(found))
    for key, shape in wanted.items():
        node = found[names[key]]
        sizes = tuple(node.shape[1:])
        fits = len(sizes) == len(shape) and all(
            not isinstance(size, int) or size == side
            for size, side in zip(sizes, shape, strict=True)
        )
        if node.type != "tensor(float)" or not fits:
            raise InputError(
                f"model {path}: input {key}",
                f"float32 (batch, {', '.join(map(str, shape))}) as its card says",
                f"{node.type} {node.shape}",
            )
    return names


def _check_output(session: onnxruntime.InferenceSession, card: ModelCard, path: Path) -> str:
    """Name of the output that holds the logit: the one called so, or the only one."""
    found = [node.name for node in session.get_outputs()]
    named = [output.name for output in card.outputs]
    missing = [name for name in named if name not in found]
    if missing or not named:
        raise InputError(f"model {path}: outputs", ", ".join(named) or "one or more", found)
    if len(named) > 1 and "logit" not in named:
        raise InputError(f"model {path}: card.outputs", "one called logit", ", ".join(named))
    return "logit" if "logit" in named else named[0]


def _fixed_batch(session: onnxruntime.InferenceSession) -> int | None:
    """Batch size that the graph insists on, if it does."""
    size = session.get_inputs()[0].shape[0]
    return size if isinstance(size, int) else None
