"""Stage `publish`: what a finished run leaves for people. Each product is made whole or kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pyarrow as pa

from lenspipe.catalogue import scores
from lenspipe.catalogue.candidates import (
    FINGERPRINT,
    Rule,
    StampBatch,
    choose,
    kept_candidates,
    write_candidates,
)
from lenspipe.catalogue.funnel import Funnel, funnel
from lenspipe.catalogue.kept_columns import with_kept
from lenspipe.catalogue.whole_folder import remove
from lenspipe.contracts import InputSpec
from lenspipe.errors import CorruptRunError
from lenspipe.run_directory import CANDIDATES, FUNNEL, KNOWN, STAGES, ZARR_ROOT, RunDirectory
from lenspipe.stages.planning import rows_of_ids

if TYPE_CHECKING:
    from lenspipe.catalogue.hats import CatalogueInfo
    from lenspipe.catalogue.known import KnownList
    from lenspipe.catalogue.known_fates import Ask

# Ranked candidates (`object_id`, `ra`, `dec`, `score`, …) -> their pixels, in any order.
Stamps = Callable[[pa.Table], Iterable[StampBatch]]


@dataclass(frozen=True)
class PublishSettings:
    """name: of the survey. rule: which sources are candidates. inputs: the ensemble's image
    tensors, whose stamps are kept. cuts: names in the order of the survey file. partition_rows:
    most rows of one partition of the catalogue. mosaic: candidates shown in the report. explain:
    the best candidates that `stamps` brings maps of. known: lenses that the run is held against.
    keep_columns: of the survey's catalogue, that candidates bring along."""

    name: str
    rule: Rule
    inputs: tuple[InputSpec, ...]
    cuts: tuple[str, ...] = ()
    partition_rows: int = 1_000_000
    mosaic: int = 100
    explain: int = 100
    known: KnownList | None = None
    keep_columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class PublishInfo:
    """What was published."""

    catalogue: CatalogueInfo
    candidates: int
    funnel: Funnel
    report: str


def publish(
    run: RunDirectory,
    settings: PublishSettings,
    stamps: Stamps,
    counted: Callable[[Funnel], None] = lambda _funnel: None,
    ask: Ask | None = None,
) -> PublishInfo:
    """Catalogue, candidates.zarr, known_lenses.parquet, funnel.json, report, in this order, from
    what is committed.

    A killed publish is repeated from the product it was at; those before the funnel that already
    belong to these scores and settings are left alone, so that `stamps` is asked only where
    pixels are needed. counted: called once the funnel is known, before the report is written. ask:
    what became of the catalogue's sources at known lenses that were not selected.
    """
    # What draws and what writes HATS is slow to import, and most processes do neither.
    from lenspipe.catalogue.hats import write_catalogue
    from lenspipe.report import write_report

    parts = run.part_names("scores", run.commits("score"))
    limit = settings.partition_rows
    catalogue = write_catalogue(run, parts, settings.name, limit, settings.known)
    candidates = _publish_candidates(run, parts, settings, stamps)
    _publish_known(run, parts, settings, ask)
    found = funnel(run, candidates, settings.cuts)
    run.write_json(FUNNEL, found.model_dump(mode="json"))
    counted(found)
    report = write_report(run, settings.mosaic)
    return PublishInfo(catalogue, candidates, found, report)


def _publish_candidates(
    run: RunDirectory, parts: list[str], settings: PublishSettings, stamps: Stamps
) -> int:
    from lenspipe.catalogue.hats import scored_files

    identity = scores.fingerprint(
        parts,
        settings.name,
        settings.rule,
        settings.inputs,
        settings.explain,
        settings.keep_columns,
    )
    kept = kept_candidates(run, identity)
    if kept is not None:
        return kept
    chosen = choose(run, scored_files(run, parts), settings.rule)
    if chosen is None:
        remove(run.store, CANDIDATES, ZARR_ROOT)
        return 0
    attributes = {
        "name": settings.name,
        "rule": settings.rule.model_dump(mode="json"),
        FINGERPRINT: identity,
    }
    batches = stamps(chosen.table) if chosen.table.num_rows else ()
    if settings.keep_columns:
        sources = rows_of_ids(run, chosen.table["object_id"], ["object_id", *settings.keep_columns])
        chosen = replace(chosen, table=with_kept(chosen.table, sources, settings.keep_columns))
    write_candidates(run, chosen, settings.inputs, batches, attributes)
    return chosen.total


def _publish_known(
    run: RunDirectory, parts: list[str], settings: PublishSettings, ask: Ask | None
) -> None:
    if settings.known is None:
        run.store.delete(KNOWN)
        return
    from lenspipe.catalogue.known import read_known, write_known
    from lenspipe.catalogue.known_fates import follow

    failed = [n for stage in STAGES for n in run.part_names("failures", run.commits(stage))]
    listed = settings.known
    radius, rule = listed.radius_arcsec, settings.rule
    identity = scores.fingerprint([*parts, *failed], rule, listed.sha256, radius, ask is None)
    try:
        kept = read_known(run)
    except CorruptRunError:
        kept = None
    if kept is None or kept.identity != identity:
        write_known(run, follow(run, listed, rule, identity, ask))
