"""The plan of stage `select`: cuts, network and reader, checked against the catalogue."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa

from lenspipe import config, cutouts
from lenspipe.catalogue.kept_columns import FIELD, check_kept
from lenspipe.contracts import RESERVED_COLUMNS, failure_schema, selected_schema
from lenspipe.cutouts.base import ReaderOptions
from lenspipe.cutouts.columns import Kind
from lenspipe.errors import InputError
from lenspipe.models import zoo
from lenspipe.select.cuts import CompiledCuts, compile_cuts
from lenspipe.select.database import Limits
from lenspipe.select.expressions import match_column
from lenspipe.select.measured import RESERVED
from lenspipe.select.photometry import PhotometryNetwork
from lenspipe.select.sources import View, open_view


@dataclass(frozen=True, eq=False)
class SelectPlan:
    """All that `select_part` needs, checked on the driver; small and picklable.

    key: identity; two plans of one key are the same. threshold: logit of the photometry network;
    None until it is settled, or without a network. carried: columns that the reader needs.
    """

    key: str
    view: View
    cuts: CompiledCuts
    carried: tuple[str, ...] = ()
    network: Path | None = None
    network_columns: tuple[str, ...] = ()
    keep: config.Keep | None = None
    threshold: float | None = None
    reader: ReaderOptions | None = None
    base: str = "."
    threads: int = 1

    def with_threshold(self, threshold: float) -> SelectPlan:
        """The same plan with the network's threshold (logit) known."""
        settled = replace(self, threshold=threshold)
        return replace(settled, key=_key(settled))

    def carrying(self, names: Collection[str]) -> SelectPlan:
        """The same plan that carries these columns of the catalogue too."""
        more = set(names) & set(self.view.schema.names)
        wider = replace(self, carried=tuple(sorted({*self.carried, *more})))
        return replace(wider, key=_key(wider))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SelectPlan) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    @property
    def selected_schema(self) -> pa.Schema:
        """Schema of `SelectResult.selected`."""
        carried = [self.view.schema.field(name) for name in self.carried]
        return selected_schema(self.view.schema.field("object_id").type, carried)

    @property
    def failure_schema(self) -> pa.Schema:
        """Schema of `SelectResult.failures`."""
        return failure_schema(self.view.schema.field("object_id").type)

    @property
    def stored_columns(self) -> frozenset[str]:
        """Columns of the files that are read; `list_parts` checks that they agree."""
        used = {*RESERVED, *self.cuts.columns, *self.network_columns, *self.carried}
        return frozenset(self.view.stored_name(name) for name in used)


def plan_select(survey: config.Survey, threads: int = 1) -> SelectPlan:
    """Check the stage of a survey against its catalogue and models; InputError names the field.

    Where `photometry.keep` is a fraction, `settle_threshold` has to follow.
    """
    runtime = survey.runtime
    return plan_catalogue(
        survey.sources,
        survey.cuts,
        survey.photometry,
        survey.cutouts,
        survey.base,
        Limits(runtime.cut_timeout_s, runtime.cut_memory_mb, threads),
    )


def plan_catalogue(
    sources: config.Sources,
    cuts: Mapping[str, str],
    photometry: config.Photometry | None,
    reader: ReaderOptions | None,
    base: str,
    limits: Limits | None = None,
) -> SelectPlan:
    """The same from the blocks of the survey file that matter. limits: of the cuts of one part."""
    limits = limits or Limits()
    view = open_view(sources, base)
    needs = cutouts.open_reader(reader, base).needs if reader else ()
    # Numbers that find pixels are names: 99 of a CCD is no missing value.
    exact = frozenset(column.name for column in needs if column.kind is not Kind.NUMBER)
    view = replace(view, exact=exact)
    needed = {column.name for column in needs}
    carried = tuple(sorted({*needed, *sources.keep_columns} - set(RESERVED)))
    _require(view, needed - set(RESERVED), "cutouts")
    _require(view, sources.keep_columns, FIELD)
    check_kept(sources.keep_columns, view.schema)
    for column in needs:
        column.require(view.schema)
    network = zoo.find(photometry.model, base, "photometry.model") if photometry else None
    columns = PhotometryNetwork.load(network).columns if network else ()
    _require(view, columns, "photometry.model")
    _require_numbers(view, columns)
    plan = SelectPlan(
        key="",
        view=view,
        cuts=compile_cuts(cuts, view.schema, limits),
        carried=carried,
        network=network,
        network_columns=columns,
        keep=photometry.keep if photometry else None,
        threshold=photometry.keep.score_above if photometry else None,
        reader=reader,
        base=base,
        threads=limits.threads,
    )
    return replace(plan, key=_key(plan))


def _require(view: View, columns: Collection[str], where: str) -> None:
    for name in columns:
        if match_column(f"{where}: column {name}", name, view.schema.names) != name:
            raise InputError(f"{where}: column {name}", "a name with the same capitals", "another")
    taken = sorted(RESERVED_COLUMNS & set(columns))
    if taken:
        expected = "columns that lenspipe does not write itself (sources.rename gives other names)"
        raise InputError(where, expected, ", ".join(taken))


def _require_numbers(view: View, columns: Collection[str]) -> None:
    for name in columns:
        kind = view.schema.field(name).type
        if not (pa.types.is_floating(kind) or pa.types.is_integer(kind)):
            raise InputError(f"photometry.model: column {name}", "a numeric column", f"{kind}")


def _key(plan: SelectPlan) -> str:
    """Digest of all that a result depends on."""
    content = {
        "stored": plan.view.stored,
        "types": [str(kind) for kind in plan.view.schema.types],
        "missing": plan.view.missing_values,
        "exact": sorted(plan.view.exact),
        "cuts": [plan.cuts.names, plan.cuts.sql],
        "network": str(plan.network),
        "threshold": plan.threshold,
        "carried": plan.carried,
        "reader": plan.reader.model_dump(mode="json") if plan.reader else None,
        "base": plan.base,
        "threads": plan.threads,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
