"""`lenspipe score`: an ensemble on a file or folder of cutouts, with no survey around it."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Bool

from lenspipe import __version__, cutouts
from lenspipe.config import Columns, is_url, resolve
from lenspipe.contracts import ProviderName, failure_schema, score_schema
from lenspipe.cutouts.base import Locator, Reader
from lenspipe.cutouts.checks import order_cautions
from lenspipe.errors import InputError, StoppedError
from lenspipe.healpix import healpix_29
from lenspipe.models.card import Threshold
from lenspipe.models.ensemble import Ensemble, Prepared, describe_ensemble, load_ensemble
from lenspipe.models.ensemble_file import EnsembleDescription
from lenspipe.models.footprint import cpu_batch_size
from lenspipe.models.providers import choose, on_gpu
from lenspipe.redaction import redact
from lenspipe.run_directory import without_credentials
from lenspipe.score.catalogue import read_catalogue
from lenspipe.score.groups import GroupTable, count_groups, group_values
from lenspipe.score.layout import CATALOGUE_ROW, CutoutLayout, find_layout
from lenspipe.score.listing import list_cutouts, name_columns
from lenspipe.score.order import InOrder, chunk_rows, with_locality
from lenspipe.score.outputs import Outputs, name_outputs, refuse_inputs
from lenspipe.score.report import RowScores, ScoreReport, render_report, row_scores
from lenspipe.select.expressions import match_column
from lenspipe.sky import on_sky, wrapped
from lenspipe.stages.scoring import ShardPixels, score_rows
from lenspipe.storage.refusals import describe_refusal, is_refusal
from lenspipe.storage.store import Store

WRITE_ROWS = 65536  # rows of a row group of what is written


@dataclass
class ScoreSummary:
    """What came out. above: threshold -> rows that score higher. opening_seconds: of `seconds`,
    until the models were open and the cutouts listed. cautions: what may be wrong with it."""

    ensemble: str
    out: str
    failures_out: str
    provider: str
    rows: int = 0
    scored: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    above: dict[Threshold, int] = field(default_factory=dict)
    seconds: float = 0.0
    opening_seconds: float = 0.0
    groups: GroupTable | None = None
    report_out: str | None = None
    cautions: tuple[str, ...] = ()

    def lines(self) -> list[tuple[str, str]]:
        """The same for a terminal: (name, text)."""
        reasons = ", ".join(f"{reason} {count}" for reason, count in self.failed.most_common())
        thresholds = [
            (
                f"above {threshold.score:.3f}",
                f"{count}  (FPR {threshold.fpr:g} on {threshold.n_negatives} negatives)",
            )
            for threshold, count in self.above.items()
        ]
        return [
            *(("warning", line) for line in self.cautions),
            ("ensemble", f"{self.ensemble} on {self.provider}"),
            ("cutouts", str(self.rows)),
            ("scored", f"{self.scored} in {self.seconds:.1f} s"),
            *thresholds,
            ("failed", f"{sum(self.failed.values())}  {reasons}".rstrip()),
            ("scores", self.out),
            ("failures", self.failures_out),
            *([("report", self.report_out)] if self.report_out else []),
        ]


def score_cutouts(
    ensemble: str,
    cutouts_path: str | Path,
    out: str | Path,
    *,
    catalogue: str | Path | None = None,
    layout: str | Path | None = None,
    columns: Mapping[str, str] | None = None,
    options: Mapping[str, Any] | None = None,
    provider: ProviderName = "auto",
    threads: int = 1,
    batch_size: int | None = None,
    group: Sequence[str] = (),
    report: bool = False,
    prevalence: float | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ScoreSummary:
    """Score every row of a catalogue, or every cutout where there is none, into a Parquet file.

    ensemble: a name in the zoo or a path. cutouts_path, layout, options: see `find_layout`.
    catalogue: CSV or Parquet; default the layout's, else one row per cutout found. columns: `id`,
    `ra`, `dec` over the layout's. group: columns of the catalogue by whose values results are
    counted. report: write a page with pictures too, `NAME.report.html`. prevalence: fraction of
    lenses that probabilities are to hold at, by default that of the ensemble's calibration.
    progress: called with rows done and rows in all. Beside `out`, `NAME.failures.parquet` holds the
    rows without a score, each with its reason. InputError where a file that is read would be
    written over.
    """
    began = time.perf_counter()
    outputs = name_outputs(out, report)
    found = find_layout(cutouts_path, layout, options)
    named = Columns(**{**found.columns.model_dump(), **(columns or {})})
    described = describe_ensemble(ensemble)
    reader = cutouts.open_reader(found.options, found.base)
    reader.check(described.inputs)
    rows_of = _catalogue(catalogue, found)
    _refuse_inputs(outputs, found, reader, described, rows_of, layout, cutouts_path)
    sources = read_sources(rows_of, named, found, reader)
    values = group_values(sources, group) if group else []
    if batch_size is None and not on_gpu(choose(provider)):
        batch_size = cpu_batch_size([member.path for member in described.members])
    loaded = load_ensemble(
        ensemble,
        provider=provider,
        threads=threads,
        batch_size=batch_size,
        described=described,
        prevalence=prevalence,
    )
    locator = reader if rows_of is None and isinstance(reader, Locator) else None
    rows_at_once = chunk_rows(
        found.options.reader, loaded.provider, max(m.batch_size for m in loaded.members)
    )
    # Stamps are files of their own: no order of theirs is better than another.
    reordered = rows_of is not None and found.options.reader != "stamps"
    to_read = with_locality(sources, reader) if reordered else sources
    numbers = to_read[CATALOGUE_ROW].to_numpy()
    repeated = _repeated(sources["object_id"])[numbers]
    summary = ScoreSummary(
        ensemble=loaded.name,
        out=str(out),
        failures_out=f"{outputs.folder}/{outputs.failures}",
        provider=loaded.provider,
        above=dict.fromkeys(loaded.description.spec.thresholds, 0),
        opening_seconds=time.perf_counter() - began,
        # Without a catalogue too: identifiers are positions then.
        cautions=order_cautions(found.options, reader.listing()),
    )
    store = Store(outputs.folder)
    with ExitStack() as stack:
        tables = _Tables(stack, store, outputs, sources, loaded)
        in_order = InOrder() if (np.diff(numbers) < 0).any() else None
        read = _ChunkReading(
            reader, to_read, loaded, locator, repeated, rows_at_once, redact(str(cutouts_path))
        )
        # Stamps are many small files; other formats are read in large pieces.
        readers = threads if found.options.reader == "stamps" else 1
        for pixels, prepared in _read_ahead(read, readers):
            scores, failures = score_rows(loaded, pixels, prepared)
            if in_order is None:
                tables.write(scores, failures)
            else:
                in_order.add(pixels, scores, failures)
            _count(summary, scores, failures)
            if progress is not None:
                progress(summary.rows, sources.num_rows)
        if in_order is not None:
            tables.write(*in_order.tables())
        tables.flush()
    summary.seconds = time.perf_counter() - began
    if group or report:
        with _scores_written(outputs):
            by_row = _read_back(store, outputs, sources)
            if group:
                summary.groups = count_groups(group, values, by_row.score, [*summary.above])
            if report:
                told = _report(summary, loaded, cutouts_path)
                page = render_report(told, sources, by_row, reader, loaded.inputs)
                store.write(outputs.page, page.encode())
                summary.report_out = f"{outputs.folder}/{outputs.page}"
    return summary


def _catalogue(given: str | Path | None, layout: CutoutLayout) -> str | None:
    """Absolute path or URL of the catalogue that was given, else of the layout's."""
    return (
        layout.catalogue if given is None else resolve(str(given), str(Path.cwd()), "--catalogue")
    )


@contextmanager
def _scores_written(outputs: Outputs) -> Iterator[None]:
    """Where the system refuses what comes after the scores, say that they are whole."""
    try:
        yield
    except Exception as error:
        if not is_refusal(error):
            raise
        scores, failures, *page = outputs.paths
        missing = f"the page {page[0]}" if page else "the count of groups"
        raise StoppedError(
            f"{describe_refusal(error)}; {scores} and {failures} are complete,"
            f" only {missing} was not made"
        ) from error


def _read_back(store: Store, outputs: Outputs, sources: pa.Table) -> RowScores:
    """What was written, row by row of the catalogue."""
    with store.open(outputs.scores) as file:
        scores = pq.read_table(file, columns=["object_id", "score", "probability"])
    with store.open(outputs.failures) as file:
        failures = pq.read_table(file, columns=["object_id", "reason"])
    first = np.flatnonzero(~_repeated(sources["object_id"]))
    return row_scores(sources, first, scores, failures)


def _report(summary: ScoreSummary, ensemble: Ensemble, cutouts_path: str | Path) -> ScoreReport:
    spec = ensemble.description.spec
    return ScoreReport(
        name=redact(Path(cutouts_path).absolute().name),
        ensemble=ensemble.name,
        facts=[
            ("ensemble", ensemble.name),
            ("members", ", ".join(ensemble.member_names)),
            ("networks that ran", ", ".join(member.name for member in ensemble.members)),
            ("model hash", ensemble.model_hash),
            ("provider", ensemble.provider),
            ("lenspipe", __version__),
            ("cutouts", redact(str(cutouts_path))),
            ("scores", redact(summary.out)),
            ("failures", redact(summary.failures_out)),
        ],
        thresholds=spec.thresholds,
        prevalence=ensemble.prevalence,
        failed=summary.failed.most_common(),
        groups=summary.groups,
    )


def read_sources(
    catalogue: str | Path | None, columns: Columns, layout: CutoutLayout, reader: Reader
) -> pa.Table:
    """The rows to score: object_id, ra, dec, healpix_29, `catalogue_row` and all other columns.

    A position that is not known is null: so are all where there is no catalogue and the reader
    tells them with the pixels. InputError where a column that is needed is missing.
    """
    if catalogue is None:
        later = isinstance(reader, Locator)
        table, columns = list_cutouts(layout.options, layout.base, not later), Columns()
    else:
        table = read_catalogue(catalogue, name_columns(layout.options, columns.id), columns.id)
    table = _with(table, CATALOGUE_ROW, pa.array(np.arange(table.num_rows)))
    table = _with_identity(table, columns)
    missing = sorted(reader.columns - set(table.column_names))
    if missing:
        raise InputError("catalogue", f"column {missing[0]}, which the reader needs", "none")
    for column in reader.needs:
        column.require(table.schema)
    return table


def _with_identity(table: pa.Table, columns: Columns) -> pa.Table:
    """The table with object_id, ra, dec and healpix_29."""
    if columns.id not in table.column_names:
        raise InputError("columns.id", f"one of {', '.join(table.column_names)}", repr(columns.id))
    identity = table[columns.id].combine_chunks()
    if pa.types.is_dictionary(identity.type):
        identity = identity.dictionary_decode()
    if pa.types.is_large_string(identity.type) or pa.types.is_string_view(identity.type):
        identity = pc.cast(identity, pa.string())
    if not (pa.types.is_integer(identity.type) or pa.types.is_string(identity.type)):
        raise InputError("columns.id", "a column of integers or text", identity.type)
    if identity.null_count:
        raise InputError("columns.id", "an id in every row", f"{identity.null_count} without")
    ra = _position(table, columns.ra, "ra")
    dec = _position(table, columns.dec, "dec")
    return _with_position(_with(table, "object_id", identity), ra, dec)


def _position(table: pa.Table, name: str, default: str) -> np.ndarray:
    """A column of degrees, NaN where there is none; only a column under its default may lack. As in
    a survey, a name may differ in capitals where it is the only one that does."""
    if name == default and name not in [found.lower() for found in table.column_names]:
        return np.full(table.num_rows, np.nan)
    column = table[match_column(f"columns.{default}", name, table.column_names)]
    try:
        if pa.types.is_string(column.type):  # of a CSV, where it is a part of a name too
            column = pc.utf8_trim_whitespace(column)
        column = pc.cast(column, pa.float64())
    except pa.ArrowException as error:
        raise InputError(f"columns.{default}", "a column of degrees", error) from error
    return np.asarray(column.to_numpy(zero_copy_only=False), np.float64)


def _with_position(table: pa.Table, ra: np.ndarray, dec: np.ndarray) -> pa.Table:
    """ra within 0..360 deg, both null where they are no position on the sky."""
    known = on_sky(ra, dec)
    ra = np.where(known, wrapped(np.where(known, ra, 0.0)), np.nan)
    index = np.zeros(len(ra), np.int64)
    index[known] = healpix_29(ra[known], dec[known])
    table = _with(table, "ra", pa.array(ra, mask=~known))
    table = _with(table, "dec", pa.array(dec, mask=~known))
    return _with(table, "healpix_29", pa.array(index, mask=~known))


def _with(table: pa.Table, name: str, column: Any) -> pa.Table:
    if name in table.column_names:
        return table.set_column(table.column_names.index(name), name, column)
    return table.append_column(name, column)


@dataclass(frozen=True)
class _ChunkReading:
    """Reads `chunk` rows from a start on and normalises them; safe in several threads.

    locator: the reader where it is to tell the positions as well. repeated: rows that are not to
    be read.
    """

    reader: Reader
    sources: pa.Table
    ensemble: Ensemble
    locator: Locator | None
    repeated: Bool[np.ndarray, " n"]
    chunk: int
    place: str

    @property
    def starts(self) -> range:
        """The first row of every chunk."""
        return range(0, self.sources.num_rows, self.chunk)

    def __call__(self, start: int) -> tuple[ShardPixels, Prepared]:
        """Pixels of the chunk, and what the ensemble takes of them; an error of the system without
        a name is told of the cutouts, not of the file that is being written."""
        try:
            return self._read(start)
        except OSError as error:
            error.filename = error.filename or self.place
            raise

    def _read(self, start: int) -> tuple[ShardPixels, Prepared]:
        began = time.perf_counter()
        rows = self.sources.slice(start, self.chunk)
        double = self.repeated[start : start + self.chunk]
        wanted = rows.filter(pa.array(~double))
        if self.locator is not None:
            batch, found = self.locator.read_located(wanted, self.ensemble.inputs)
            positions = np.full((rows.num_rows, 2), np.nan)
            positions[~double] = found
            rows = _with_position(rows, positions[:, 0], positions[:, 1])
        else:
            batch = self.reader.read(wanted, self.ensemble.inputs)
        pixels = ShardPixels(rows, double, batch, time.perf_counter() - began)
        return pixels, self.ensemble.prepare(batch.images)


def _read_ahead(read: _ChunkReading, threads: int) -> Iterator[tuple[ShardPixels, Prepared]]:
    """The chunks in their order; the next ones are read while one is scored."""
    with ThreadPoolExecutor(threads, "cutouts") as reading:
        ahead: deque[Future[tuple[ShardPixels, Prepared]]] = deque()
        for start in read.starts:
            ahead.append(reading.submit(read, start))
            if len(ahead) > threads:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def _repeated(identity: pa.ChunkedArray) -> Bool[np.ndarray, " n"]:
    """Rows whose id an earlier row has: they are failures, never scored twice."""
    codes = pc.dictionary_encode(identity).combine_chunks().indices.to_numpy()
    repeated = np.ones(len(codes), bool)
    repeated[np.unique(codes, return_index=True)[1]] = False
    return repeated


def _refuse_inputs(
    outputs: Outputs,
    layout: CutoutLayout,
    reader: Reader,
    ensemble: EnsembleDescription,
    catalogue: str | Path | None,
    *paths: str | Path | None,
) -> None:
    """See `refuse_inputs`. paths: further files that were given."""
    models = (ensemble.path, *(member.path for member in ensemble.members))
    given = [str(path) for path in (catalogue, *paths, *models) if path is not None]
    refuse_inputs(outputs, chain(given, _pixel_files(reader)), _stores(catalogue, layout))


def _pixel_files(reader: Reader) -> Iterator[str]:
    """Every file of pixels, listed where the first is asked for."""
    for listing in reader.listing().values():
        for file in listing.files:
            yield file.path


def _stores(catalogue: str | Path | None, layout: CutoutLayout) -> list[str]:
    """Folders that are read as one: a Zarr store, a catalogue of several files."""
    pixels = resolve(str(getattr(layout.options, "path", "")), layout.base)
    named = [str(path) for path in (catalogue, pixels) if path is not None]
    return [path for path in named if is_url(path) or Path(path).is_dir()]


def _count(summary: ScoreSummary, scores: pa.Table, failures: pa.Table) -> None:
    summary.rows += scores.num_rows + failures.num_rows
    summary.scored += scores.num_rows
    summary.failed.update(failures["reason"].to_pylist())
    values = scores["score"].to_numpy()
    for threshold in summary.above:
        summary.above[threshold] += int((values > threshold.score).sum())


class _Tables:
    """The two files that are written; both appear whole at the end, or neither.

    Chunks are gathered to row groups of a size that readers like.
    """

    def __init__(
        self,
        stack: ExitStack,
        store: Store,
        outputs: Outputs,
        sources: pa.Table,
        ensemble: Ensemble,
    ) -> None:
        kind = sources.schema.field("object_id").type
        self._scores = _writer(stack, store, outputs.scores, _schema(kind, ensemble))
        self._failures = _writer(stack, store, outputs.failures, failure_schema(kind))
        self._waiting: list[tuple[pa.Table, pa.Table]] = []
        self._rows = 0

    def write(self, scores: pa.Table, failures: pa.Table) -> None:
        """Append the rows of one chunk."""
        self._waiting.append((scores, without_credentials(failures)))
        self._rows += scores.num_rows + failures.num_rows
        if self._rows >= WRITE_ROWS:
            self.flush()

    def flush(self) -> None:
        """Write what was gathered."""
        for writer, tables in zip(
            (self._scores, self._failures), zip(*self._waiting, strict=True), strict=False
        ):
            writer.write_table(pa.concat_tables(tables))
        self._waiting, self._rows = [], 0


def _schema(id_type: pa.DataType, ensemble: Ensemble) -> pa.Schema:
    return score_schema(id_type, ensemble.member_names, ensemble.prevalence)


def _writer(stack: ExitStack, store: Store, name: str, schema: pa.Schema) -> pq.ParquetWriter:
    path = stack.enter_context(store.writing(name))
    writer: pq.ParquetWriter = stack.enter_context(
        pq.ParquetWriter(path, schema, compression="zstd")
    )
    return writer
