"""The survey file: pydantic models that refuse unknown keys and name the key in every error."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, PositiveFloat, PositiveInt, ValidationError, field_validator
from pydantic import model_validator as after_model

from lenspipe import cutouts
from lenspipe.cutouts.base import Block, ReaderOptions
from lenspipe.errors import InputError


class Columns(Block):
    """Names that the survey gives to the columns lenspipe needs."""

    id: str = "object_id"
    ra: str = "ra"
    dec: str = "dec"


class Sources(Block):
    """The catalogue. path: Parquet file, folder, HATS catalogue or URL, or several of them.

    rename: new name -> the survey's column, so that cuts and photometry features can use the names
    of the model card. missing_values: numbers that mean "not measured" (Pan-STARRS: -999).
    """

    path: str | tuple[str, ...]
    columns: Columns = Columns()
    rename: dict[str, str] = Field(default_factory=dict)
    missing_values: tuple[float, ...] = ()


class Keep(Block):
    """How many the photometry network lets through: by logit, or by fraction of its input."""

    score_above: float | None = None
    fraction: float | None = Field(default=None, gt=0.0, le=1.0)

    @after_model(mode="after")
    def _one(self) -> Keep:
        if (self.score_above is None) == (self.fraction is None):
            raise ValueError("expected exactly one of score_above, fraction")
        return self


class Photometry(Block):
    """Stage 2. model: a name in the zoo or a path."""

    model: str
    keep: Keep


class Candidates(Block):
    """Which scored sources are candidates: by a threshold that holds a stated false-positive rate
    on the ensemble's test set, by score, or the best so many."""

    fpr: float | None = Field(default=None, gt=0.0, lt=1.0)
    score_above: float | None = None
    top: PositiveInt | None = None
    max_stamps: PositiveInt = 10_000  # stamps kept in candidates.zarr, the best first

    @after_model(mode="after")
    def _one(self) -> Candidates:
        if sum(rule is not None for rule in (self.fpr, self.score_above, self.top)) != 1:
            raise ValueError("expected exactly one of fpr, score_above, top")
        return self


class Runtime(Block):
    """How the run uses the machine; none of it changes a result beyond the last digits of a float,
    so a resume may change it.

    scorers: actors (default: one per GPU, or one per `cpus_per_scorer` on CPUs). readers: separate
    reader tasks (default 0: each scorer reads its next shard ahead in `read_ahead` threads).
    batch_size: rows per call of a network (default: 64 on CPUs, 512 on GPUs).
    max_attempts: tries of a shard before it is split. failure_limit: fraction of the selected
    sources that may fail before the command ends with status 3.
    """

    provider: Literal["auto", "cpu", "cuda", "tensorrt"] = "auto"
    shard_rows: PositiveInt = 8192
    batch_size: PositiveInt | None = None
    scorers: PositiveInt | None = None
    cpus_per_scorer: PositiveFloat = 1.0
    gpus_per_scorer: PositiveFloat = 1.0
    readers: int = Field(default=0, ge=0)
    read_ahead: PositiveInt = 1
    max_attempts: PositiveInt = 3
    shard_timeout_s: PositiveFloat | None = None
    failure_limit: float = Field(default=0.01, ge=0.0, le=1.0)
    metrics_port: int | None = Field(default=None, ge=0, le=65535)
    address: str | None = None


class Publish(Block):
    """partition_rows: most rows of one HEALPix partition of the published catalogue. mosaic:
    candidates shown in the report. explain: the best candidates that get an occlusion map."""

    partition_rows: PositiveInt = 1_000_000
    mosaic: PositiveInt = 100
    explain: int = Field(default=100, ge=0)


class Survey(Block):
    """A whole survey file. `base`: the folder that relative paths start from."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    sources: Sources
    cuts: dict[str, str] = Field(default_factory=dict)
    photometry: Photometry | None = None
    cutouts: ReaderOptions
    ensemble: str
    candidates: Candidates
    output: str = "run/"
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
            raise _first_error(error, "cutouts") from error

    def identity(self) -> dict[str, Any]:
        """What a result depends on: all of the file but `runtime` and `output`."""
        kept = self.model_dump(mode="json", exclude={"runtime", "output", "cutouts"})
        kept["cutouts"] = self.cutouts.model_dump(mode="json")
        return kept


def _first_error(error: ValidationError, prefix: str = "") -> InputError:
    first = error.errors()[0]
    field = ".".join(str(part) for part in (prefix, *first["loc"]) if str(part))
    if first["type"] == "extra_forbidden":
        return InputError(field or "survey file", "a known key", "an unknown one")
    if first["type"] == "missing":
        return InputError(field, "a value", "none")
    message = first["msg"].removeprefix("Value error, ").removeprefix("expected ")
    return InputError(field or "survey file", message, repr(first.get("input")))


def is_url(path: str) -> bool:
    """Whether `path` names an object store or a web address rather than a local file."""
    return "://" in path


def resolve(path: str, base: str) -> str:
    """`path` as an absolute path or URL; relative ones start from `base`."""
    if is_url(path) or Path(path).is_absolute():
        return path
    return (
        f"{base.rstrip('/')}/{path}"
        if is_url(base)
        else os.path.normpath(Path(base, path).absolute())
    )


def load_survey(path: str | Path) -> Survey:
    """Read and validate a survey file. InputError names the key that is wrong."""
    file = Path(path)
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError("survey file", "a YAML file", f"nothing at {file}") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(str(file), "readable YAML", error) from error
    if not isinstance(content, dict):
        raise InputError(str(file), "a mapping of keys to values", type(content).__name__)
    return parse_survey(content, base=str(file.parent.absolute()))


def parse_survey(content: dict[str, Any], base: str) -> Survey:
    """Validate a survey that is already a mapping; see `load_survey`."""
    try:
        return Survey.model_validate({**content, "base": base})
    except ValidationError as error:
        raise _first_error(error) from error
