"""Everything that can be known of a survey before a GPU starts: `lenspipe check`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lenspipe import cutouts
from lenspipe.catalogue.candidates import Rule
from lenspipe.config import Survey, resolve
from lenspipe.cutouts.base import BandInfo
from lenspipe.identity import fingerprint
from lenspipe.models.card import file_sha256
from lenspipe.models.ensemble_file import EnsembleDescription, describe_ensemble
from lenspipe.models.providers import ProviderName
from lenspipe.publish import PublishSettings
from lenspipe.scoring import ScoreSettings
from lenspipe.select.files import CatalogueFile
from lenspipe.select.sources import SourcePart, list_parts
from lenspipe.select.stage import SelectPlan, plan_select
from lenspipe.select.threshold import settle_threshold


@dataclass(frozen=True)
class CheckedSurvey:
    """A survey of which files, columns, bands and models were found to fit together."""

    survey: Survey
    parts: tuple[SourcePart, ...]
    select_plan: SelectPlan
    ensemble: EnsembleDescription
    bands: dict[str, BandInfo]

    @property
    def rows(self) -> int:
        """Rows of the catalogue."""
        return sum(part.rows for part in self.parts)

    @property
    def output(self) -> str:
        """The run directory."""
        return resolve(self.survey.output, self.survey.base)

    def settled(self) -> CheckedSurvey:
        """The same with the photometry network's threshold, where it is given as a fraction."""
        plan = settle_threshold(self.select_plan, self.parts)
        return CheckedSurvey(self.survey, self.parts, plan, self.ensemble, self.bands)

    def identity(self) -> dict[str, Any]:
        """What a result depends on: the survey file, the models' hashes, the catalogue's files."""
        network = self.select_plan.network
        return {
            "survey": self.survey.identity(),
            "models": {
                "ensemble": self.ensemble.model_hash,
                "photometry": file_sha256(network) if network else None,
            },
            "inputs": {
                "rows": self.rows,
                "files": len(self._files()),
                "fingerprint": fingerprint(self._files()),
            },
        }

    def publish_settings(self) -> PublishSettings:
        """What stage `publish` needs to know."""
        return PublishSettings(
            name=self.survey.name,
            rule=self._rule(),
            inputs=self.ensemble.inputs,
            cuts=tuple(self.survey.cuts),
            partition_rows=self.survey.publish.partition_rows,
            mosaic=self.survey.publish.mosaic,
        )

    def _rule(self) -> Rule:
        wanted = self.survey.candidates
        if wanted.fpr is None:
            return Rule(score_above=wanted.score_above, top=wanted.top, keep=wanted.max_stamps)
        threshold = self.ensemble.threshold(wanted.fpr)
        calibration = self.ensemble.spec.calibration
        return Rule(
            score_above=threshold.score,
            keep=wanted.max_stamps,
            fpr=threshold.fpr,
            n_negatives=threshold.n_negatives,
            prevalence=calibration.prevalence if calibration else None,
        )

    def _files(self) -> list[CatalogueFile]:
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
        )


def check_survey(survey: Survey) -> CheckedSurvey:
    """Find every mistake that shows without reading pixels; InputError names the first."""
    ensemble = describe_ensemble(survey.ensemble, survey.base)
    if survey.candidates.fpr is not None:
        ensemble.threshold(survey.candidates.fpr)
    reader = cutouts.open_reader(survey.cutouts, survey.base)
    bands = dict(reader.describe())
    reader.check(ensemble.inputs)
    plan = plan_select(survey)
    parts = list_parts(survey.sources, survey.base, plan.stored_columns)
    return CheckedSurvey(survey, parts, plan, ensemble, bands)


def describe(checked: CheckedSurvey) -> list[tuple[str, str]]:
    """What was found, as (field, text) lines for a person."""
    size = sum(part.size_bytes for part in checked.parts)
    lines = [
        ("survey", checked.survey.name),
        ("sources", f"{checked.rows:,} rows in {len(checked.parts)} parts, {_bytes(size)}"),
        ("cuts", ", ".join(checked.survey.cuts) or "none"),
        ("photometry", str(checked.select_plan.network or "none")),
        ("ensemble", f"{checked.ensemble.name} ({', '.join(checked.ensemble.member_names)})"),
    ]
    lines += [(f"band {name}", _band(info)) for name, info in checked.bands.items()]
    return [*lines, ("output", checked.output)]


def _band(info: BandInfo) -> str:
    scale = f"{info.pixel_scale_arcsec:.4g} arcsec/pixel" if info.pixel_scale_arcsec else "scale ?"
    return f"{info.files} files, {_bytes(info.bytes)}, {scale}"


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000 or unit == "TB":
            return f"{count:.3g} {unit}"
        count /= 1000
    raise AssertionError("unreachable")
