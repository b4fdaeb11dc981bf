"""Everything that can be known of a survey before a GPU starts: `lenspipe check`."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from lenspipe import cutouts
from lenspipe.catalogue.candidates import Rule
from lenspipe.catalogue.known import KnownList, read_list
from lenspipe.config import Survey, resolve
from lenspipe.contracts import ProviderName
from lenspipe.cutouts.base import BandInfo, Inspector
from lenspipe.cutouts.checks import order_cautions
from lenspipe.cutouts.files.listing import Listing
from lenspipe.cutouts.files.paths import constant_part
from lenspipe.models.card import file_sha256
from lenspipe.models.ensemble_file import EnsembleDescription, describe_ensemble
from lenspipe.preflight import check_address, check_apart, check_output, free_bytes, local_slots
from lenspipe.processes.slots import Slots
from lenspipe.redaction import redact_values
from lenspipe.run.identity import fingerprint
from lenspipe.run_directory import VERBATIM, RunDirectory
from lenspipe.select.files import CatalogueFile
from lenspipe.select.sources import SourcePart, list_parts, stored_share
from lenspipe.select.stage import SelectPlan, plan_select
from lenspipe.stages.planning import most_rows
from lenspipe.stages.publish import PublishSettings
from lenspipe.stages.scoring import ScoreSettings

_MOST_WARNINGS = 10


@dataclass(frozen=True)
class CheckedSurvey:
    """A survey of which files, columns, bands and models were found to fit together."""

    survey: Survey
    parts: tuple[SourcePart, ...]
    select_plan: SelectPlan
    ensemble: EnsembleDescription
    bands: dict[str, BandInfo]
    known: KnownList | None = None

    @property
    def rows(self) -> int:
        """Rows of the catalogue."""
        return sum(part.rows for part in self.parts)

    @property
    def pixels(self) -> dict[str, Listing]:
        """The files of each band, as they were at the check."""
        return {name: band.listing for name, band in self.bands.items()}

    def pixels_now(self) -> dict[str, Listing]:
        """The files of each band as they are now: one more listing, no file is opened."""
        return dict(cutouts.open_reader(self.survey.cutouts, self.survey.base).listing())

    @property
    def cautions(self) -> tuple[str, ...]:
        """What may give a source the pixels of another one, in words; a run tells it too."""
        return order_cautions(self.survey.cutouts, self.pixels)

    @property
    def output(self) -> str:
        """The run directory."""
        return resolve(self.survey.output, self.survey.base)

    def identity(self) -> dict[str, Any]:
        """What a result depends on: the survey file, the models' hashes, the catalogue's files,
        and of the pixels' files how many, their bytes, and a digest of names, sizes and times."""
        network = self.select_plan.network
        found: dict[str, Any] = {
            "survey": self.survey.identity(),
            "models": {
                "ensemble": self.ensemble.model_hash,
                "photometry": file_sha256(network) if network else None,
            },
            "inputs": {
                "rows": self.rows,
                "files": len(self.files()),
                "fingerprint": fingerprint(self.files()),
            },
            "pixels": {
                name: {
                    "files": band.files,
                    "bytes": band.bytes,
                    "sha256": band.listing.sha256,
                    **self._order(band.listing),
                }
                for name, band in self.bands.items()
            },
        }
        if self.known is not None:
            rows = self.known.table.num_rows
            found["known_lenses"] = {"rows": rows, "sha256": self.known.sha256}
        # Signed URLs: the signature must not be written, and signed anew they name the same files.
        told: dict[str, Any] = json.loads(json.dumps(redact_values(found, VERBATIM)))
        return told

    def _order(self, files: Listing) -> dict[str, Any]:
        """The files' names in their order, where positions count through them."""
        if not self.survey.cutouts.counts_files:
            return {}
        return {"order": {"files": files.count, "sha256": files.names_sha256(files.count)}}

    def publish_settings(self) -> PublishSettings:
        """What stage `publish` needs to know."""
        return PublishSettings(
            name=self.survey.name,
            rule=self._rule(),
            inputs=self.ensemble.inputs,
            cuts=tuple(self.survey.cuts),
            partition_rows=self.survey.publish.partition_rows,
            mosaic=self.survey.publish.mosaic,
            explain=self.survey.publish.explain,
            known=self.known,
            keep_columns=self.survey.sources.keep_columns,
        )

    @property
    def shard_rows(self) -> int:
        """Most rows of a shard; see `stages.planning.most_rows`."""
        return most_rows(self.survey.runtime.shard_rows, self.ensemble.inputs)

    def _rule(self) -> Rule:
        wanted = self.survey.candidates
        prevalence = self.ensemble.prevalence(self.survey.prevalence)
        if wanted.fpr is None:
            return Rule(
                score_above=wanted.score_above,
                top=wanted.top,
                keep=wanted.max_stamps,
                prevalence=prevalence,
            )
        threshold = self.ensemble.threshold(wanted.fpr)
        return Rule(
            score_above=threshold.score,
            keep=wanted.max_stamps,
            fpr=threshold.fpr,
            n_negatives=threshold.n_negatives,
            prevalence=prevalence,
        )

    def files(self) -> list[CatalogueFile]:
        """The catalogue's files."""
        files = {piece.file.path: piece.file for part in self.parts for piece in part.slices}
        return list(files.values())

    def score_settings(self, run_url: str, provider: ProviderName, threads: int) -> ScoreSettings:
        """What the scoring actors need to know."""
        return ScoreSettings(
            run_url=run_url,
            cutouts=self.survey.cutouts,
            ensemble=str(self.ensemble.path),
            base=self.survey.base,
            provider=provider,
            threads=threads,
            batch_size=self.survey.runtime.batch_size,
            inputs=self.ensemble.inputs,
            model_hash=self.ensemble.model_hash,
            gpu_share=min(1.0, self.survey.runtime.gpus_per_scorer),
            prevalence=self.survey.prevalence,
        )


def check_survey(survey: Survey) -> CheckedSurvey:
    """Find every mistake that shows without reading pixels; InputError names the first."""
    output = resolve(survey.output, survey.base)
    check_output(output)
    _check_apart(survey)
    RunDirectory(output).refuse_foreign()
    ensemble = describe_ensemble(survey.ensemble, survey.base)
    ensemble.prevalence(survey.prevalence)
    if survey.candidates.fpr is not None:
        ensemble.threshold(survey.candidates.fpr)
    reader = cutouts.open_reader(survey.cutouts, survey.base)
    bands = dict(reader.describe())
    reader.check(ensemble.inputs)
    plan = plan_select(survey)
    parts = list_parts(survey.sources, survey.base, plan.stored_columns)
    wanted = survey.known_lenses
    known = None if wanted is None else read_list(wanted, survey.base)
    return CheckedSurvey(survey, parts, plan, ensemble, bands, known)


def _check_apart(survey: Survey) -> None:
    """A run may not write among its inputs: catalogue and pixels; see `preflight.check_apart`."""
    paths = survey.sources.path
    check_apart(
        resolve(survey.output, survey.base),
        [resolve(path, survey.base) for path in ((paths,) if isinstance(paths, str) else paths)],
        {
            f"cutouts.{name}": constant_part(value, survey.base)
            for name in ("path", "tiles")
            if isinstance(value := getattr(survey.cutouts, name, None), str)
        },
    )


def check_machine(survey: Survey, address: str | None = None) -> Slots | None:
    """Slots on this machine, None where a cluster will be joined; InputError where the survey file
    asks for more than there is, or no cluster answers. address: of the command line."""
    if address is not None:
        check_address(address)
    elif survey.runtime.address is not None:
        check_address(survey.runtime.address, "runtime.address")
    else:
        return local_slots(survey.runtime)
    return None


def describe(checked: CheckedSurvey, slots: Slots | None = None) -> list[tuple[str, str]]:
    """What was found, as (field, text) lines for a person."""
    survey = checked.survey
    size = sum(part.size_bytes for part in checked.parts)
    return [
        ("survey", survey.name),
        ("sources", f"{checked.rows:,} rows in {len(checked.parts)} parts, {_bytes(size)}"),
        ("cuts", ", ".join(survey.cuts) or "none"),
        ("photometry", str(checked.select_plan.network or "none")),
        ("ensemble", f"{checked.ensemble.name} ({', '.join(checked.ensemble.member_names)})"),
        *((f"band {name}", _band(info, survey)) for name, info in checked.bands.items()),
        *([] if checked.known is None else [("known lenses", f"{checked.known.table.num_rows:,}")]),
        *(("warning", line) for line in (*checked.cautions, *_warnings(survey))),
        ("workers", _workers(slots)),
        ("shards", _shards(checked, slots)),
        ("cost", _cost(checked, size)),
        ("not known", _not_known(survey)),
        ("output", _output(checked.output)),
    ]


def _band(info: BandInfo, survey: Survey) -> str:
    scale = info.pixel_scale_arcsec or survey.cutouts.pixel_scale_arcsec
    told = f"{scale:.4g} arcsec/pixel" if scale else "pixel scale not stated"
    return f"{info.files} files, {_bytes(info.bytes)}, {told}"


def _warnings(survey: Survey) -> list[str]:
    """What will cost sources and is no reason to refuse; the first few, and how many more."""
    reader = cutouts.open_reader(survey.cutouts, survey.base)
    found = list(reader.problems()) if isinstance(reader, Inspector) else []
    more = len(found) - _MOST_WARNINGS
    return [*found[:_MOST_WARNINGS], *([f"and {more} more"] if more > 0 else [])]


def _workers(slots: Slots | None) -> str:
    if slots is None:
        return "as many as the cluster has slots for"
    told = f"{slots.scorers} scorers of {slots.cpus:g} CPUs"
    if slots.gpus:
        told += f" and {slots.gpus:g} GPUs"
    return f"{told}, {slots.readers} readers, provider {slots.provider}"


def _shards(checked: CheckedSurvey, slots: Slots | None) -> str:
    """What a worker has in memory at most, beside the networks."""
    size = checked.shard_rows * _row_bytes(checked)
    told = f"of at most {checked.shard_rows:,} rows, {_bytes(size)} of pixels"
    return told if slots is None else f"{told}; a scorer holds {slots.depth}"


def _cost(checked: CheckedSurvey, size: int) -> str:
    """Upper bounds: what is read where every row survives."""
    share = stored_share(checked.files(), checked.select_plan.stored_columns)
    keep = checked.select_plan.keep
    most = checked.rows
    if keep is not None and keep.fraction is not None:
        most = round(keep.fraction * most)
    pixels = _row_bytes(checked)
    return (
        f"at most {_bytes(share * size)} of the catalogue's columns read, at most {most:,} cutouts"
        f" ({_bytes(most * pixels)} of pixels into the networks)"
    )


def _row_bytes(checked: CheckedSurvey) -> int:
    return sum(4 * math.prod(spec.shape) for spec in checked.ensemble.inputs)


def _not_known(survey: Survey) -> str:
    stages = [
        name for name, there in (("cuts", survey.cuts), ("network", survey.photometry)) if there
    ]
    kept = f"how many rows pass the {' and the '.join(stages)}, " if stages else ""
    return f"{kept}the time per cutout (`lenspipe bench` measures this machine)"


def _output(url: str) -> str:
    free = free_bytes(url)
    return url if free is None else f"{url} ({_bytes(free)} free)"


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000 or unit == "TB":
            return f"{count:.3g} {unit}"
        count /= 1000
    raise AssertionError("unreachable")
