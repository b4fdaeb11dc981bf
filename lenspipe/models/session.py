"""One network in ONNX Runtime: pixels in, logits out, in batches of one fixed size."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
from jaxtyping import Bool, Float32

from lenspipe.contracts import InputSpec, ProviderName
from lenspipe.errors import InputError, MemberError, ProviderError
from lenspipe.models import cuda, engine_cache, normalise, providers
from lenspipe.models.card import ModelCard, Normalisation, read_model
from lenspipe.models.encode import RUNTIME_TYPES, encode, image_inputs, input_dtype
from lenspipe.models.engine_cache import EngineKey, Engines
from lenspipe.models.feed import Feed, ahead, make_feed
from lenspipe.models.memory import OutOfMemoryError, is_out_of_memory
from lenspipe.models.providers import ProviderOptions

FEATURES = "features"  # key under which `predict` takes a photometry network's input
MAX_FIXED_BATCH = 65_536
# More is no flux, in whatever unit. Networks overflow on it, and not every provider says so:
# OpenVINO's ReLU makes 0 of the NaN, and a score of that.
MOST_FLUX = 1e30
# What is normalised at once outside of the graph.
NORMALISED_ROWS = 64
# What a short batch is padded to on the CPU: whole vectors, and few different shapes.
PADDED_TO = 8


class Member:
    """A network that is ready to run. One thread at a time: its batch buffers are reused.

    card, path, sha256 (of the whole file), provider (the one in use), batch_size, and inputs:
    key of `predict` -> shape without the batch. halvings: how often the batch was made smaller
    since the device's memory did not hold it.
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
        self.halvings = 0
        self.engines: Engines | None = None  # kept, since TensorRT may write there again
        self._session = session
        self._device_id = device_id
        self._images = image_inputs(card)
        self._graph_names = _check_inputs(session, card, path)
        self._output = _check_output(session, card, path)
        self._fixed_batch = _fixed_batch(session, path)
        self.batch_size = self._fixed_batch or batch_size
        self._normalise = card.normalisation
        self._feed = self._make_feed()

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
        given = replace(options or default_options(), batch_rows=batch_size)
        sha256 = hashlib.sha256(content).hexdigest()

        def opened(with_options: ProviderOptions) -> Member:
            session = providers.open_session(
                content, chosen, threads, device_id, with_options, f"model {path}"
            )
            member = cls(
                session,
                card,
                path=Path(path),
                sha256=sha256,
                provider=chosen,
                batch_size=batch_size,
                device_id=device_id,
            )
            member.warm_up()
            return member

        if chosen != "tensorrt" or given.engine_cache is None:
            return opened(given)
        shapes = {key: (batch_size, *shape) for key, shape in input_shapes(card).items()}
        return _with_engines(opened, given, engine_key(sha256, shapes, given, device_id))

    @property
    def name(self) -> str:
        """The card's name."""
        return self.card.name

    @property
    def session(self) -> onnxruntime.InferenceSession:
        """The network in ONNX Runtime, to be measured by itself."""
        return self._session

    @property
    def image_inputs(self) -> tuple[InputSpec, ...]:
        """What the network wants to see; empty for a photometry network."""
        return tuple(image.spec() for image in self.card.images)

    def warm_up(self) -> None:
        """Run one batch of zeros. MemberError where that fails, so that no row is at fault."""
        while not self._runs_zeros():
            self._halve()

    def _runs_zeros(self) -> bool:
        """Whether the device had memory for a batch of zeros."""
        try:
            for buffer in self._feed.buffers(0).values():
                buffer[...] = 0
            self._stage(0, self._feed.buffers(0))
            self._run(0, self.batch_size)
        except OutOfMemoryError:
            return False
        return True

    def predict(self, images: Mapping[str, np.ndarray]) -> Float32[np.ndarray, " n"]:
        """Logit per row of `images`: input name -> (n, band, y, x), or `features` -> (n, feature).

        A row with a value that is not finite, or beyond `MOST_FLUX`, gives NaN. MemberError where
        the network raises.
        """
        return self.infer(self.normalised(images))

    def normalised(self, images: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """`images` as the graph takes them: with what the card asks for outside of the graph.

        Rows with a value that is not finite are NaN throughout, or as they were where nothing is
        asked for. Safe in several threads; a block of rows at a time, which stays in the cache.
        """
        arrays = self._validated(images)
        asked = self._normalise
        if asked is None or asked.in_graph:
            return arrays
        finite = _finite_rows(arrays)
        made = {}
        for key, array in arrays.items():
            out = made[key] = np.empty_like(array)
            for start in range(0, len(array), NORMALISED_ROWS):
                rows = slice(start, start + NORMALISED_ROWS)
                block = _zeroed(array[rows], finite[rows])
                out[rows] = normalise.apply(asked.name, asked.parameters, block, np)
            out[~finite] = np.nan
        return made

    def infer(self, normalised: Mapping[str, np.ndarray]) -> Float32[np.ndarray, " n"]:
        """As `predict`, for what `normalised` gave."""
        logits = np.empty(self.rows(normalised), np.float32)
        for start, found in self.stream(normalised):
            logits[start : start + len(found)] = found
        return logits

    def rows(self, images: Mapping[str, np.ndarray]) -> int:
        """How many rows `images` holds; InputError where they are not what the network takes."""
        return len(next(iter(self._validated(images).values())))

    def stream(
        self, images: Mapping[str, np.ndarray], first: int = 0
    ) -> Iterator[tuple[int, Float32[np.ndarray, " k"]]]:
        """Batch by batch (first row, logits) from row `first` on of what `normalised` gave.

        A batch that the device has no memory for is done again in halves, and so are all later
        ones. Any other fault is raised where the batch's turn is.
        """
        arrays = self._validated(images)
        rows = len(next(iter(arrays.values())))
        while first < rows:
            short = False
            try:
                for start, found in self._batches(arrays, range(first, rows, self.batch_size)):
                    yield start, found
                    first = start + len(found)
            except OutOfMemoryError:
                short = True
            if short:  # not while the error is handled: its traceback holds the old buffers
                self._halve()

    def _batches(
        self, arrays: Mapping[str, np.ndarray], starts: range
    ) -> Iterator[tuple[int, Float32[np.ndarray, " k"]]]:
        slots = self._feed.slots

        def prepare(index: int) -> tuple[int, Bool[np.ndarray, " k"]]:
            part = {k: a[starts[index] : starts[index] + starts.step] for k, a in arrays.items()}
            return index % slots, self._prepare(index % slots, part)

        overlap = slots > 1 and len(starts) > 1
        # Closed at once where a batch fails: its thread may be filling buffers that are to go.
        with closing(ahead(prepare, range(len(starts)), overlap)) as prepared:
            for start, (slot, finite) in zip(starts, prepared, strict=True):
                found = self._run(slot, self._padded(len(finite)))[: len(finite)]
                yield start, np.where(finite, found, np.float32(np.nan))

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

    def _prepare(self, slot: int, part: Mapping[str, np.ndarray]) -> Bool[np.ndarray, " k"]:
        """Stage a batch of `_padded` rows and tell which of its rows are finite. Rows that are
        missing or not finite are zeros in it."""
        finite = _finite_rows(part)
        if self._as_it_is(part, finite):
            self._stage(slot, {self._graph_names[key]: array for key, array in part.items()})
            return finite
        rows = self._padded(len(finite))
        buffers = {name: whole[:rows] for name, whole in self._feed.buffers(slot).items()}
        for key, array in part.items():
            buffer = buffers[self._graph_names[key]]
            encode(_zeroed(array, finite), self._images.get(key), buffer[: len(finite)])
            buffer[len(finite) :] = 0
        self._stage(slot, buffers)
        return finite

    def _padded(self, rows: int) -> int:
        """Rows of the batch that so many rows are run in. A device has kernels and buffers for one
        size; the CPU takes any, and a short batch costs less there."""
        if self._feed.slots > 1 or self._fixed_batch is not None:
            return self.batch_size
        return min(self.batch_size, -(-rows // PADDED_TO) * PADDED_TO)

    def _as_it_is(self, part: Mapping[str, np.ndarray], finite: Bool[np.ndarray, " k"]) -> bool:
        """Whether the rows are a batch already, in memory and in type."""
        return (
            len(finite) == self.batch_size
            and self._feed.slots == 1
            and bool(finite.all())
            and all(input_dtype(self._images.get(key)) == np.float32 for key in part)
            and all(array.flags.c_contiguous for array in part.values())
        )

    def _stage(self, slot: int, batch: Mapping[str, np.ndarray]) -> None:
        try:
            self._feed.stage(slot, batch)
        # ONNX Runtime's exceptions have no common base but Exception.
        except Exception as error:
            raise self._told(error) from error

    def _run(self, slot: int, rows: int) -> Float32[np.ndarray, " rows"]:
        try:
            found = np.asarray(self._feed.run(slot), np.float32)
        except Exception as error:  # as above
            raise self._told(error) from error
        if found.size != rows:
            raise InputError(
                f"{self.name}: output {self._output}", f"one logit per row ({rows})", found.shape
            )
        return found.reshape(rows)

    def _told(self, error: Exception) -> MemberError:
        text = f"{self.name}: {_shortened(' '.join(str(error).split()))}"
        if is_out_of_memory(error) and self.batch_size > 1 and self._fixed_batch is None:
            return OutOfMemoryError(text)
        return MemberError(text)

    def _halve(self) -> None:
        """Smaller batches from now on; the device's buffers go before the new ones come."""
        self.batch_size //= 2
        self.halvings += 1
        del self._feed
        self._feed = self._make_feed()

    def _make_feed(self) -> Feed:
        while True:
            specs = {
                self._graph_names[key]: (
                    (self.batch_size, *shape),
                    input_dtype(self._images.get(key)),
                )
                for key, shape in self.inputs.items()
            }
            try:
                return make_feed(self._session, self._output, specs, self.provider, self._device_id)
            # ONNX Runtime's exceptions have no common base but Exception.
            except Exception as error:
                told = self._told(error)
                if not isinstance(told, OutOfMemoryError):
                    raise told from error
            self.batch_size //= 2
            self.halvings += 1


def default_options() -> ProviderOptions:
    """What is used where nobody says: the machine's folder for engines."""
    folder = engine_cache.root()
    return ProviderOptions(engine_cache=None if folder is None else str(folder))


def engine_key(
    sha256: str, shapes: Mapping[str, tuple[int, ...]], options: ProviderOptions, device_id: int
) -> EngineKey:
    """What a TensorRT engine of this network depends on, here and now."""
    device = cuda.device(device_id)
    name = "unknown" if device is None else f"{device.name} {device.compute}"
    precision = "fp16" if options.fp16 else "fp32"
    return EngineKey(sha256, name, providers.engine_versions(), shapes, precision)


def _with_engines(
    opened: Callable[[ProviderOptions], Member], options: ProviderOptions, key: EngineKey
) -> Member:
    """Open with the engines of an earlier process, or build them and keep them for the next.

    Engines that were kept and do not work are removed, and built anew.
    """
    engines = Engines(Path(str(options.engine_cache)), key)
    here = replace(options, engine_cache=str(engines.folder))
    try:
        member = opened(here)
    except (ProviderError, MemberError):
        if not engines.reused:
            raise
        engines.discard()
        member = opened(here)
    engines.publish()
    member.engines = engines
    return member


def input_shapes(card: ModelCard) -> dict[str, tuple[int, ...]]:
    """Key of `Member.predict` -> shape without the batch."""
    if card.features:
        return {FEATURES: (len(card.features),)}
    return {image.name: image.spec().shape for image in card.images}


def check_normalisation(card: ModelCard, path: str) -> None:
    """InputError where the card names a normalisation that is unknown, wrongly set, or said to be
    in a graph that cannot hold it."""
    if card.normalisation is not None and any(image.normalisation for image in card.images):
        raise InputError(
            f"model {path}: card.normalisation", "one for all inputs, or each its own", "both"
        )
    if card.features and card.normalisation is not None:
        raise InputError(f"model {path}: card.normalisation", "none beside features", "one")
    try:
        for image in card.images:
            asked = image.normalisation or card.normalisation
            if asked is not None:
                _check_asked(asked, len(image.bands))
    except InputError as error:
        raise InputError(
            f"model {path}: card.{error.field}", error.expected, error.found
        ) from error


def _check_asked(asked: Normalisation, bands: int) -> None:
    normalise.parse(asked.name, asked.parameters).check_bands(bands)
    if asked.in_graph and asked.name in normalise.ARRAY_ONLY:
        raise InputError("normalisation.in_graph", f"false, as no graph holds {asked.name}", "true")


def _shortened(text: str) -> str:
    """Beginning and end of what ONNX Runtime says: the place, and what went wrong there."""
    return text if len(text) <= 500 else f"{text[:150]} … {text[-300:]}"


def _finite_rows(part: Mapping[str, np.ndarray]) -> Bool[np.ndarray, " k"]:
    """Rows of which every value is finite and at most `MOST_FLUX`. The sum of squares tells most at
    once: it is finite only where all values are small; else they are looked at themselves."""
    finite = np.ones(len(next(iter(part.values()))), bool)
    for array in part.values():
        flat = array.reshape(len(array), math.prod(array.shape[1:]))
        with np.errstate(over="ignore", invalid="ignore"):
            squares = np.einsum("ij,ij->i", flat, flat)
        doubtful = np.flatnonzero(~np.isfinite(squares))
        finite[doubtful] &= (np.abs(flat[doubtful]) <= MOST_FLUX).all(axis=1)
    return finite


def _zeroed(array: np.ndarray, finite: Bool[np.ndarray, " n"]) -> np.ndarray:
    """The rows with zeros where they are not finite."""
    if finite.all():
        return array
    array = array.copy()
    array[~finite] = 0.0
    return array


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
        dtype = str(input_dtype(image_inputs(card).get(key)))
        if node.type != RUNTIME_TYPES[dtype] or not fits:
            raise InputError(
                f"model {path}: input {key}",
                f"{dtype} (batch, {', '.join(map(str, shape))}) as its card says",
                f"{node.type} {node.shape}",
            )
    return names


def _check_output(session: onnxruntime.InferenceSession, card: ModelCard, path: Path) -> str:
    """Name of the output that holds the logit: the one called so, or the only one."""
    found = {node.name: node.type for node in session.get_outputs()}
    named = [output.name for output in card.outputs]
    missing = [name for name in named if name not in found]
    if missing or not named:
        raise InputError(f"model {path}: outputs", ", ".join(named) or "one or more", list(found))
    if len(named) > 1 and "logit" not in named:
        raise InputError(f"model {path}: card.outputs", "one called logit", ", ".join(named))
    chosen = "logit" if "logit" in named else named[0]
    if found[chosen] not in ("tensor(float)", "tensor(float16)", "tensor(double)"):
        raise InputError(f"model {path}: output {chosen}", "floating point", found[chosen])
    return chosen


def _fixed_batch(session: onnxruntime.InferenceSession, path: Path) -> int | None:
    """Batch size that the graph insists on, if it does."""
    sizes = {size for node in session.get_inputs() if isinstance(size := node.shape[0], int)}
    if len(sizes) > 1 or any(not 0 < size <= MAX_FIXED_BATCH for size in sizes):
        found = ", ".join(map(str, sorted(sizes)))
        raise InputError(f"model {path}: batch", f"one size up to {MAX_FIXED_BATCH}", found)
    return next(iter(sizes), None)
