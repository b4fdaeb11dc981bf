"""The survey file: pydantic models that refuse unknown keys and name the key in every error."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, field_validator
from pydantic import model_validator as after_model

from lenspipe import cutouts
from lenspipe.contracts import ProviderName
from lenspipe.cutouts.base import (
    Block,
    Count,
    Number,
    PositiveNumber,
    ReaderOptions,
    Text,
    WholeNumber,
)
from lenspipe.errors import InputError
from lenspipe.problems import first_problem
from lenspipe.storage.names import require_sound
from lenspipe.storage.remote import refuse_credentials
from lenspipe.yaml_file import read_yaml

CUT_ORDER = "cut_order"  # of `Survey.identity`, no key of the file


class Columns(Block):
    """Names that the survey gives to the columns lenspipe needs."""

    id: Text = "object_id"
    ra: Text = "ra"
    dec: Text = "dec"


class Sources(Block):
    """The catalogue. path: Parquet file, folder, HATS catalogue or URL, or several of them.

    rename: new name -> the survey's column, so that cuts and photometry features can use the names
    of the model card. missing_values: numbers that mean "not measured" (Pan-STARRS: -999).
    keep_columns: what candidates bring along for those who look at them (magnitudes, a redshift).
    """

    path: Text | Annotated[tuple[Text, ...], Field(min_length=1)]
    columns: Columns = Columns()
    rename: dict[Text, Text] = Field(default_factory=dict)
    missing_values: tuple[Number, ...] = ()
    keep_columns: tuple[Text, ...] = ()


class Keep(Block):
    """How many the photometry network lets through: by logit, or by fraction of its input."""

    score_above: Number | None = None
    fraction: Number | None = Field(default=None, gt=0.0, le=1.0)

    @after_model(mode="after")
    def _one(self) -> Keep:
        if (self.score_above is None) == (self.fraction is None):
            raise ValueError("expected exactly one of score_above, fraction")
        return self


class Photometry(Block):
    """Stage 2. model: a name in the zoo or a path."""

    model: Text
    keep: Keep


class Candidates(Block):
    """Which scored sources are candidates: by a threshold that holds a stated false-positive rate
    on the ensemble's test set, by score, or the best so many."""

    fpr: Number | None = Field(default=None, gt=0.0, lt=1.0)
    score_above: Number | None = None
    top: Count | None = None
    max_stamps: Count = 10_000  # stamps kept in candidates.zarr, the best first

    @after_model(mode="after")
    def _one(self) -> Candidates:
        if sum(rule is not None for rule in (self.fpr, self.score_above, self.top)) != 1:
            raise ValueError("expected exactly one of fpr, score_above, top")
        return self


class Runtime(Block):
    """How the run uses the machine; none of it changes a result beyond the last digits of a float,
    so a resume may change it; but for `openvino_bf16`, see `run.opening.tell_provider`.

    scorers: actors (default: one per GPU, or one per `cpus_per_scorer` on CPUs). readers: separate
    reader tasks (default 0: each scorer reads its next shard ahead in `read_ahead` threads).
    batch_size: rows per call of a network (default: 64 on CPUs, 512 on GPUs).
    max_attempts: tries of a shard before it is split. shard_timeout_s: what a shard may take
    (default: by the slowest so far, see `lenspipe.processes.time_limit`). failure_limit: fraction
    that may fail before the command ends with status 3, see `lenspipe.run.failure_limit`.
    cut_timeout_s, cut_memory_mb: what one cut may take on one part of the catalogue. metrics_host:
    address of the driver that `metrics_port` listens on. metrics_linger_s: how long the driver
    waits at its end until its last state is scraped.
    """

    provider: ProviderName = "auto"
    shard_rows: Count = 8192
    batch_size: Count | None = None
    scorers: Count | None = None
    cpus_per_scorer: PositiveNumber = 1.0
    gpus_per_scorer: PositiveNumber = 1.0
    readers: WholeNumber = Field(default=0, ge=0)
    read_ahead: Count = 1
    max_attempts: Count = 3
    shard_timeout_s: PositiveNumber | None = None
    failure_limit: Number = Field(default=0.01, ge=0.0, le=1.0)
    cut_timeout_s: PositiveNumber = Field(default=60.0, le=86_400.0)
    cut_memory_mb: Count = 2048
    metrics_port: WholeNumber | None = Field(default=None, ge=0, le=65535)
    metrics_host: Text = "127.0.0.1"
    metrics_linger_s: Number = Field(default=90.0, ge=0.0, le=3600.0)
    address: Text | None = None


class Publish(Block):
    """partition_rows: most rows of one HEALPix partition of the published catalogue. mosaic:
    candidates shown in the report. explain: the best candidates that get an occlusion map."""

    partition_rows: Count = 1_000_000
    mosaic: Count = 100
    explain: WholeNumber = Field(default=100, ge=0)


class KnownLenses(Block):
    """A list of lenses that are known, which the run says what it made of. path: a file or folder
    as `lenspipe crossmatch` takes it, or `lenscat`. radius_arcsec: how near a source must be to be
    a lens's. ra, dec, name: columns, where their names are unusual."""

    path: Text
    radius_arcsec: PositiveNumber = Field(default=2.0, le=60.0)
    ra: Text | None = None
    dec: Text | None = None
    name: Text | None = None


class Survey(Block):
    """A whole survey file. `base`: the folder that relative paths start from.

    prevalence: fraction of lenses among the sources that reach the ensemble, which probabilities
    are to hold at; by default that of the ensemble's calibration.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    sources: Sources
    cuts: dict[Text, str] = Field(default_factory=dict)
    photometry: Photometry | None = None
    cutouts: ReaderOptions
    ensemble: Text
    prevalence: Number | None = Field(default=None, gt=0.0, lt=1.0)
    candidates: Candidates
    known_lenses: KnownLenses | None = None
    output: Text = "run/"
    runtime: Runtime = Runtime()
    publish: Publish = Publish()
    base: str = Field(default=".", exclude=True)

    @field_validator("cutouts", mode="plain")
    @classmethod
    def _reader_options(cls, value: Any) -> ReaderOptions:
        if isinstance(value, ReaderOptions):
            return value
        if not isinstance(value, dict) or not isinstance(value.get("reader"), str):
            raise InputError("cutouts.reader", f"one of {', '.join(cutouts.names())}", value)
        model = cutouts.options_model(value["reader"])
        try:
            return model.model_validate(value)
        except ValidationError as error:
            raise first_problem(error, "cutouts") from error

    def identity(self) -> dict[str, Any]:
        """What a result depends on: all of the file but `runtime` and `output`."""
        kept = self.model_dump(mode="json", exclude={"runtime", "output", "cutouts"})
        kept["cutouts"] = self.cutouts.model_dump(mode="json")
        kept[CUT_ORDER] = list(self.cuts)  # a row is counted at the first cut that removes it
        return kept


def is_url(path: str) -> bool:
    """Whether `path` names an object store or a web address rather than a local file."""
    return "://" in path


def resolve(path: str, base: str, field: str = "path") -> str:
    """`path` as an absolute path or URL; relative ones start from `base`.

    InputError where a URL holds a user name or a password, and see `require_sound`.
    """
    refuse_credentials(path)
    require_sound(path, field)
    if is_url(path) or Path(path).is_absolute():
        return path
    require_sound(base, field)
    return (
        f"{base.rstrip('/')}/{path}"
        if is_url(base)
        else os.path.normpath(Path(base, path).absolute())
    )


def load_survey(path: str | Path) -> Survey:
    """Read and validate a survey file. InputError names the key that is wrong."""
    file = Path(path)
    if not file.exists():
        raise InputError("survey file", "a YAML file", f"nothing at {file}")
    content = read_yaml(file, str(file))
    if not isinstance(content, dict):
        raise InputError(str(file), "a mapping of keys to values", type(content).__name__)
    return parse_survey(content, base=str(file.parent.absolute()))


def parse_survey(content: dict[str, Any], base: str) -> Survey:
    """Validate a survey that is already a mapping; see `load_survey`."""
    if "base" in content:  # no key of the file: `base` is said by where the file lies
        raise InputError("base", "a known key", "an unknown one")
    try:
        return Survey.model_validate({**content, "base": base})
    except ValidationError as error:
        raise first_problem(error, whole="survey file") from error
