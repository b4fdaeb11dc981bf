"""The pixels of the candidates, read again, with what the networks see in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pyarrow as pa
from jaxtyping import Float32

from lenspipe.catalogue.candidates import StampBatch
from lenspipe.cutouts.planned import open_planned
from lenspipe.errors import StoppedError
from lenspipe.models.embedding import Embedding
from lenspipe.models.ensemble import Ensemble
from lenspipe.models.explain import occlusion_map, square_masks
from lenspipe.models.memory import OutOfMemoryError
from lenspipe.processes.time_limit import TimeLimit, within
from lenspipe.run_directory import RunDirectory
from lenspipe.stages.planning import rows_of_ids
from lenspipe.stages.scoring import ScoreSettings, open_ensemble

BATCH_ROWS = 512
# A patch of about the size of an arc.
PATCH_FRACTION = 0.17
_READING = "reading the candidates' pixels"


@dataclass(frozen=True)
class CandidateStamps:
    """Reads the stamps of ranked candidates; the best `explain` of them get an occlusion map.

    timeout_s: longest that a batch may be read, None: as `TimeLimit` judges. Nobody watches the
    driver as it watches its workers. told: hears of what the networks have no features of.
    """

    run: RunDirectory
    settings: ScoreSettings
    explain: int = 100
    timeout_s: float | None = None
    told: Callable[[str], None] = lambda _line: None

    def __call__(self, table: pa.Table) -> Iterator[StampBatch]:
        """table: candidates with `object_id`, the best first."""
        if not table.num_rows:
            return
        sources = rows_of_ids(self.run, table["object_id"])
        best = set(table["object_id"].to_pylist()[: self.explain])
        reader = open_planned(self.settings.cutouts, self.settings.base)
        limit = TimeLimit(self.timeout_s)
        with _memory_is_short():
            ensemble = self._ensemble()
            embedding = Embedding(ensemble, self.settings.threads, self.told)
        for start in range(0, sources.num_rows, BATCH_ROWS):
            part = sources.slice(start, BATCH_ROWS)
            batch = within(limit, _READING, partial(reader.read, part, self.settings.inputs))
            ids = np.asarray(part["object_id"].to_pylist(), dtype=object)[batch.rows]
            wanted = np.array([object_id in best for object_id in ids], bool)
            with _memory_is_short():
                maps = self._maps(ensemble, batch.images, wanted) if best else None
                seen = embedding(batch.images)
            yield StampBatch(ids, batch.images, maps, seen, embedding.members)
        embedding.tell()

    def _ensemble(self) -> Ensemble:
        # The driver's node need not have the scorers' device.
        return open_ensemble(replace(self.settings, provider="cpu"))

    def _maps(
        self, ensemble: Ensemble, images: Mapping[str, np.ndarray], wanted: np.ndarray
    ) -> Float32[np.ndarray, "n y x"]:
        spec = self.settings.inputs[0]
        maps = np.full((len(wanted), spec.size_pixels, spec.size_pixels), np.nan, np.float32)
        if wanted.any():
            patch = max(1, round(spec.size_pixels * PATCH_FRACTION))
            masks = square_masks(spec.size_pixels, patch, patch)
            chosen = {name: pixels[wanted] for name, pixels in images.items()}
            maps[wanted] = occlusion_map(
                lambda pixels: ensemble.score(pixels, full=True).score, chosen, masks, spec.name
            )
        return maps


@contextmanager
def _memory_is_short() -> Iterator[None]:
    """Said with the way on: nothing that was scored is lost."""
    try:
        yield
    except OutOfMemoryError as error:
        raise StoppedError(
            f"the candidates' maps and features: {error}; all scores are kept: the same command, "
            "where the driver has more memory, publishes"
        ) from error
