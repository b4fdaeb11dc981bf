"""The pages of `docs/` say what the code does: examples, tables, commands and links."""

from __future__ import annotations

import ast
import importlib.util
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, get_args, get_origin

import numpy as np
import onnxruntime
import pyarrow as pa
import pytest
import torch
import typer
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from typer.main import get_command

from lenspipe import blenders, cli, cutouts
from lenspipe.catalogue.known import FATES, known_schema
from lenspipe.catalogue.survey_sources import SOURCES
from lenspipe.catalogue.tables import TABLES
from lenspipe.config import Survey, parse_survey
from lenspipe.contracts import (
    Flag,
    InputSpec,
    Reason,
    failure_schema,
    score_schema,
    selected_schema,
)
from lenspipe.cutouts.base import ReaderOptions
from lenspipe.errors import InputError
from lenspipe.metrics import RunMetrics
from lenspipe.models import locate, normalise
from lenspipe.models.card import ModelCard
from lenspipe.models.ensemble_file import EnsembleSpec
from lenspipe.run_directory import (
    CANDIDATES,
    CATALOGUE,
    FUNNEL,
    KNOWN,
    LOCK,
    METRICS,
    PART_FOLDERS,
    PLAN_RECORD,
    REPORT,
    RUN,
    RunDirectory,
    ShardRecord,
)
from lenspipe.score.layout import LayoutFile, parse_options
from tests.catalogue.small_run import cap, commit_scores, score_table
from training import architectures, pipeline
from training import cli as training_cli
from training.blend.onnx_graph import whole
from training.recipe import parse_recipe
from training.simulate.dataset import SimulateRecipe
from training.simulate.instrument import parse_grids

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
TEXTS = [*PAGES, ROOT / "README.md", *sorted((ROOT / "changes").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)
MINIMAL = {
    "name": "minimal",
    "sources": {"path": "catalogue/"},
    "cutouts": {"reader": "hdf5", "path": "a.h5", "bands": ["g"], "row": "row"},
    "ensemble": "ps1-gri",
    "candidates": {"top": 1},
}


def blocks(path: Path, language: str) -> list[str]:
    return [body for name, body in FENCE.findall(path.read_text("utf-8")) if name == language]


def ids(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


# Tables and the models that they describe


def section(page: str, heading: str) -> str:
    """The text below a heading, down to the next one of any level."""
    text = (DOCS / page).read_text("utf-8")
    parts = re.split(r"^(#+ .*)$", text, flags=re.M)
    found = [body for head, body in zip(parts[1::2], parts[2::2], strict=True) if head == heading]
    assert len(found) == 1, f"{page}: {heading} stands there {len(found)} times"
    return found[0]


def cells(text: str) -> list[list[str]]:
    """Rows of all tables of a text, without heads and rules."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    rules = {k for k, line in enumerate(lines) if set(line) <= set("|-: ")}
    kept = [line for k, line in enumerate(lines) if k not in rules and k + 1 not in rules]
    split = [re.split(r"(?<!\\)\|", line.strip())[1:-1] for line in kept]
    return [[cell.strip() for cell in row] for row in split]


def keys(text: str) -> list[str]:
    return [row[0].strip("`") for row in cells(text)]


def nested(annotation: Any) -> tuple[type[BaseModel] | None, bool]:
    """A pydantic model inside an annotation, and whether it stands in a mapping."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, False
    for argument in get_args(annotation):
        model, in_mapping = nested(argument)
        if model is not None:
            return model, in_mapping or get_origin(annotation) is dict
    return None, False


def leaves(
    model: type[BaseModel], prefix: str = "", inherited: type[BaseModel] | None = None
) -> Iterator[tuple[str, FieldInfo]]:
    """Dotted keys of a model. A mapping's own keys are written `NAME`; of a mapping in a survey
    file that may also hold plain values (`BAND`), the mapping is a key too."""
    for name, field in model.model_fields.items():
        if field.exclude or (inherited is not None and name in inherited.model_fields):
            continue
        child, in_mapping = nested(field.annotation)
        key = f"{prefix}{name}"
        if child is None:
            yield key, field
        elif in_mapping and prefix == "cutouts.":
            yield key, field
            yield from leaves(child, f"{key}.BAND.")
        else:
            yield from leaves(child, f"{key}.NAME." if in_mapping else f"{key}.")


def survey_leaves() -> dict[str, FieldInfo]:
    found = {k: f for k, f in leaves(Survey) if not k.startswith("cutouts.")}
    return found | dict(leaves(ReaderOptions, "cutouts."))


def default_text(field: FieldInfo) -> str:
    """A default as the tables write it."""
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None:
        return "`none`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return f"`{list(value)}`"
    return f"`{value}`"


def check_keys(rows: list[list[str]], expected: dict[str, FieldInfo]) -> None:
    found = {row[0].strip("`"): row for row in rows}
    assert len(found) == len(rows), "a key stands in the table twice"
    assert sorted(found) == sorted(expected)
    for key, row in found.items():
        assert row[2] == default_text(expected[key]), f"default of {key}"
        assert row[1], f"type of {key}"
        assert row[3], f"meaning of {key}"
        assert row[4], f"example of {key}"


def test_every_key_of_the_survey_file_is_told() -> None:
    text = (DOCS / "survey-file.md").read_text("utf-8")
    for name in cutouts.names():
        text = text.replace(section("survey-file.md", f"### Reader `{name}`"), "\n")
    check_keys(cells(text), survey_leaves())


@pytest.mark.parametrize("name", cutouts.names())
def test_every_key_of_a_reader_is_told(name: str) -> None:
    own = dict(leaves(cutouts.options_model(name), "cutouts.", ReaderOptions))
    check_keys(cells(section("survey-file.md", f"### Reader `{name}`")), own)


def yaml_value(text: str) -> Any:
    return yaml.safe_load(text.strip("`"))


@pytest.mark.parametrize(
    "page", ["## Top level", "## `candidates`", "## `runtime`", "## `publish`"]
)
def test_the_examples_in_the_tables_are_taken(page: str) -> None:
    for row in cells(section("survey-file.md", page)):
        content: dict[str, Any] = {**MINIMAL}
        value = yaml_value(row[4])
        for part in reversed(row[0].strip("`").split(".")):
            value = {part: value}
        if row[0].startswith("`candidates.max_stamps"):
            value["candidates"]["top"] = 1
        parse_survey({**content, **value}, base=".")


def test_every_flag_and_reason_has_its_rule() -> None:
    flags = {row[0].strip("`"): row[1] for row in cells(section("rules.md", "## Flags"))}
    assert flags == {flag.name: str(flag.value) for flag in Flag}
    assert keys(section("rules.md", "## Failure reasons")) == [str(reason) for reason in Reason]


def schema_rows(schema: pa.Schema) -> list[list[str]]:
    rows = []
    for field in schema:
        told = {key.decode(): text.decode() for key, text in (field.metadata or {}).items()}
        kind = "as in the survey" if field.name == "object_id" else str(field.type)
        rows.append([f"`{field.name}`", kind, told["unit"], told["description"]])
    return rows


@pytest.mark.parametrize(
    ("heading", "schema"),
    [
        ("### Selected", selected_schema(pa.int64())),
        ("### Scores", score_schema(pa.int64(), ("MEMBER",))),
        ("### Failures", failure_schema(pa.int64())),
        ("### Known lenses", known_schema(pa.int64())),
    ],
    ids=["selected", "scores", "failures", "known_lenses"],
)
def test_columns_are_those_of_the_contracts(heading: str, schema: pa.Schema) -> None:
    assert cells(section("run-directory.md", heading)) == schema_rows(schema)


def test_tables_of_queries_and_fates_of_known_lenses_are_told() -> None:
    assert {*TABLES, SOURCES} <= set(keys(section("catalogue.md", "## SQL")))
    told = cells(section("catalogue.md", "## Known lenses"))
    assert {row[0].strip("`"): row[1] for row in told} == FATES


def test_commit_records_and_files_are_told() -> None:
    told = keys(section("run-directory.md", "## Commit records"))
    assert told == list(ShardRecord.model_fields)
    files = section("run-directory.md", "## Files")
    for name in (RUN, FUNNEL, LOCK, METRICS, PLAN_RECORD, CATALOGUE, CANDIDATES, KNOWN, REPORT):
        assert f"`{name}" in files
    for folder in PART_FOLDERS:
        assert f"`{folder}/part-*.parquet`" in files


def test_metrics_are_those_of_the_exporter() -> None:
    metrics = RunMetrics("docs")
    families = {
        f"{m.name}_total" if m.type == "counter" else m.name: (m.type, m.documentation)
        for m in metrics.registry.collect()
    }
    told = {
        row[0].strip("`"): (row[1], row[3])
        for row in cells(section("run-directory.md", "## Metrics"))
    }
    assert told == families


@pytest.mark.parametrize(
    ("heading", "model"),
    [
        ("## The model card", ModelCard),
        ("## Ensembles", EnsembleSpec),
        ("## Scoring cutouts without a survey", LayoutFile),
    ],
)
def test_keys_of_cards_ensembles_and_layouts_are_told(heading: str, model: type[BaseModel]) -> None:
    text = section("models.md", heading).partition("| blender |")[0]
    assert keys(text) == [key for key, _ in leaves(model)]


def test_normalisations_blenders_and_models_are_told() -> None:
    told = {
        row[0].strip("`"): re.findall(r"`(\w+)`", row[1])
        for row in cells(section("models.md", "## Normalisation"))
    }
    fields = {n: list(model.model_fields) for n, (model, _) in normalise.FUNCTIONS.items()}
    assert told == fields
    ensembles = section("models.md", "## Ensembles")
    assert sorted(keys(ensembles[ensembles.index("| blender |") :])) == blenders.names()
    assert sorted(keys(section("models.md", "## The zoo"))) == locate.names()


def test_architectures_and_their_sizes_are_told() -> None:
    """A stamp of the size that a row begins with is taken, and one a pixel smaller refused."""
    rows = cells(section("models.md", "## How models are made"))
    assert [row[0].strip("`") for row in rows] == architectures.names()
    for name, _, sizes in rows:
        found = re.search(r"from (\d+) up|^(\d+) or more", sizes)
        if found is None:
            assert sizes == "none"
            continue
        size = int(found[1] or found[2])
        architectures.build(name.strip("`"), {}, {"image": (1, size, size)})
        with pytest.raises(InputError, match="size_pixels"):
            architectures.build(name.strip("`"), {}, {"image": (1, size - 1, size - 1)})


# YAML examples


def parse_example(page: str, text: str) -> Any:
    """Read an example by what it holds; an example of no known kind is a failure."""
    content = yaml.safe_load(text)
    if "task" in content:
        return parse_recipe(content)
    if "psf" in content or "grids" in content:
        return parse_grids(content, page)
    if "members" in content:
        return EnsembleSpec.model_validate(content)
    if set(content) <= set(SimulateRecipe.model_fields):
        return SimulateRecipe.model_validate({"n": 1, "seed": 0, **content})
    if "catalogue" in content:
        layout = LayoutFile.model_validate(content)
        parse_options(layout.cutouts)
        return layout
    if set(content) <= set(Survey.model_fields):
        return parse_survey({**MINIMAL, **content}, base=".")
    raise AssertionError(f"{page}: an example of no known kind: {sorted(content)}")


def test_every_yaml_example_parses() -> None:
    texts = [(p.name, text) for p in [*PAGES, ROOT / "README.md"] for text in blocks(p, "yaml")]
    surveys = [(yaml.safe_load(text), parse_example(page, text)) for page, text in texts]
    whole = {s.cutouts.reader for c, s in surveys if isinstance(s, Survey) and "sources" in c}
    assert whole == set(cutouts.names()), "a full example per reader"


# Python examples


def load_example(text: str, folder: Path) -> ModuleType:
    """A plugin's example as a module; its first line says which file it is."""
    name = "example_" + re.sub(r"\W+", "_", text.splitlines()[0].strip("# ").partition(",")[0])
    path = folder / f"{name}.py"
    path.write_text(text, "utf-8")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, ModuleType]:
    monkeypatch.setattr(normalise, "FUNCTIONS", dict(normalise.FUNCTIONS))
    texts = blocks(DOCS / "extending.md", "python")
    return {text.splitlines()[0].strip("# "): load_example(text, tmp_path) for text in texts}


def test_examples_of_plugins_work(examples: dict[str, ModuleType], tmp_path: Path) -> None:
    assert len(examples) == 7
    check_reader(examples["lenspipe/cutouts/formats/npy.py"], tmp_path)

    maximum = examples["lenspipe/blenders/maximum.py"]
    fitted = examples["training/blend/maximum.py"]
    logits = np.array([[0.0, 2.0], [np.nan, 1.0]])
    options = maximum.Options(**fitted.fit(fitted.Parameters(), logits, np.array([True, False])))
    np.testing.assert_array_equal(maximum.blend(logits, options), [2.0, np.nan])
    graph = whole(fitted.nodes(options, 2), 2).SerializeToString()
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    (score,) = session.run(["score"], {"logits": logits.astype(np.float32)})
    np.testing.assert_array_equal(score, [2.0, np.nan])

    ones = np.ones((1, 2, 3, 3), np.float32)
    bent = normalise.apply("arctan", {"scale": 1.0}, ones, np)
    np.testing.assert_allclose(bent, np.pi / 4, rtol=1e-6)

    linear = examples["training/architectures/linear.py"]
    network = linear.build(linear.Parameters(), {"image": (3, 16, 16)})
    assert network(torch.zeros(5, 3, 16, 16)).shape == (5,)

    squared = examples["training/losses/squared.py"]
    labels = torch.tensor([0.0, 1.0])
    right, wrong = torch.tensor([-9.0, 9.0]), torch.tensor([9.0, -9.0])
    assert squared.loss(squared.Parameters(), right, labels) < 1e-6
    assert squared.loss(squared.Parameters(), wrong, labels) > 0.99

    offset = examples["training/augmentations/offset.py"]
    stamps, draws = {"image": torch.zeros(9, 2, 4, 4)}, torch.Generator().manual_seed(0)
    moved = offset.apply(offset.Parameters(largest=2.0), stamps, {"image": 0.25}, draws)["image"]
    assert 1.0 < moved.abs().max() <= 2.0
    assert (moved == moved[:, :1, :1, :1]).all()


def check_reader(module: ModuleType, folder: Path) -> None:
    pixels = np.random.default_rng(0).normal(size=(6, 2, 8, 8)).astype(np.float32)
    np.save(folder / "stamps.npy", pixels)
    options = module.Options(
        reader="npy", path="stamps.npy", bands=("g", "r"), row="row", pixel_scale_arcsec=0.25
    )
    reader = module.open_reader(options, str(folder))
    spec = InputSpec("image", ("r", "g"), 8, 0.25)
    reader.check([spec])
    sources = pa.table({"object_id": [7, 8, 9], "row": [5, 0, 60]})
    batch = reader.read(sources, [spec])
    np.testing.assert_array_equal(batch.images["image"], pixels[[5, 0]][:, ::-1])
    assert [(f.row, f.reason) for f in batch.failures] == [(2, Reason.NOT_FOUND)]


# lsdb and nested-pandas, which it builds on, still call what pandas 3 deprecates.
@pytest.mark.filterwarnings("ignore:The 'mode.chained_assignment':pandas.errors.Pandas4Warning")
@pytest.mark.filterwarnings("ignore:The inplace keyword:pandas.errors.Pandas4Warning")
def test_a_run_is_read_as_the_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunDirectory(str(tmp_path / "run"))
    table = score_table(*cap(200, ra=150.0, dec=2.0, radius_deg=0.5))
    table = table.set_column(
        table.column_names.index("score"),
        table.schema.field("score"),
        pa.array(np.linspace(-9, 9, 200, dtype=np.float32)),
    )
    commit_scores(run, [table])
    publish_small(run)
    monkeypatch.chdir(tmp_path)
    texts = blocks(DOCS / "run-directory.md", "python")
    found: dict[str, dict[str, Any]] = {}
    for text in texts:
        names: dict[str, Any] = {}
        exec(text, names)  # noqa: S102  # the page's own examples
        found[re.findall(r"^(?:import|from) (\w+)", text, re.M)[-1]] = names
    above = int((np.asarray(table["score"]) > 3).sum())
    assert len(found["lsdb"]["best"]) == len(found["duckdb"]["best"]) == above
    assert found["pyarrow"]["table"].num_rows == above
    assert len(found["astropy"]["table"]) == 200
    assert found["zarr"]["stamps"].shape == (5, 2, 8, 8)
    assert found["zarr"]["bands"] == ["g", "r"]


def publish_small(run: RunDirectory) -> None:
    from lenspipe.catalogue.candidates import Rule, StampBatch, choose, write_candidates
    from lenspipe.catalogue.hats import write_catalogue

    parts = run.part_names("scores", run.records("score"))
    write_catalogue(run, parts, "docs", 1000)
    chosen = choose(run, parts, Rule(top=5))
    assert chosen is not None
    pixels = np.zeros((5, 2, 8, 8), np.float32)
    stamps = [StampBatch(chosen.table["object_id"].to_pylist(), {"image": pixels})]
    write_candidates(run, chosen, [InputSpec("image", ("g", "r"), 8, 0.25)], stamps, {})


# Who may import what (architecture.md)


def imported(path: Path) -> set[str]:
    """Top-level packages that a module imports, wherever the import stands."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.partition(".")[0])
    return found


def test_modules_import_what_the_page_allows() -> None:
    paths = sorted((ROOT / "lenspipe").rglob("*.py"))
    wrong = {
        str(path.relative_to(ROOT)): found
        for path in paths
        if (found := imported(path) & {"torch", "lenstronomy", "training", "pickle"})
    }
    assert not wrong
    with_ray = {path.name for path in paths if "ray" in imported(path)}
    assert "runtime.py" in with_ray
    assert with_ray <= {"runtime.py", "submit.py"}


# Commands


def commands(path: Path) -> Iterator[str]:
    """Command lines in fences and in code spans; a line that ends in a backslash goes on."""
    text = path.read_text("utf-8").replace("\\\n", " ")
    fenced = [line for _, body in FENCE.findall(text) for line in body.splitlines()]
    spans = re.findall(r"`([^`\n]+)`", FENCE.sub("", text))
    start = re.compile(r"\s*(?:\$ )?(?:[\w./]*/)?((?:lenspipe|make|python -m) [\w-].*)")
    for line in (*fenced, *spans):
        match = start.match(line)
        if match:
            yield match[1]


ALL_COMMANDS = [(path, line) for path in TEXTS for line in commands(path)]


@pytest.mark.parametrize(
    ("path", "line"), ALL_COMMANDS, ids=[f"{p.name}: {c}" for p, c in ALL_COMMANDS]
)
def test_a_command_that_is_named_exists(path: Path, line: str) -> None:
    words = shlex.split(line, comments=True)
    if words[0] == "lenspipe":
        check_options(get_command(cli.app), words[1:])
    elif words[0] == "make":
        makefile = (ROOT / "Makefile").read_text("utf-8")
        assert re.search(rf"^{re.escape(words[1])}:", makefile, re.M)
    elif words[2] == "training":
        check_options(get_command(training_cli.app), words[3:])
    elif words[2] == "training.pipeline":
        app = typer.Typer()
        app.command()(pipeline.main)
        check_options(get_command(app), words[3:])
    else:
        assert importlib.util.find_spec(words[2]) is not None, f"{path.name}: {words[2]}"


def check_options(command: Any, words: list[str]) -> None:
    """Every subcommand and option of a command line is one of the program's, and no required
    argument is missing where any is given."""
    while words and hasattr(command, "commands"):
        if words[0].startswith("-"):
            break
        assert words[0] in command.commands, f"{words[0]}: one of {sorted(command.commands)}"
        command, words = command.commands[words[0]], words[1:]
    known = {name for p in command.params for name in (*p.opts, *p.secondary_opts)}
    given = [word.partition("=")[0] for word in words if word.startswith("--")]
    assert set(given) <= known | {"--help"}, f"options of {command.name}: {sorted(known)}"
    takes = [p for p in command.params if p.param_type_name == "argument"]
    flags = {n for p in command.params if getattr(p, "is_flag", False) for n in p.opts}
    flags |= {n for p in command.params for n in p.secondary_opts}
    plain, skip = 0, False
    for word in words:
        skip, is_value = word.startswith("--") and word not in flags and "=" not in word, skip
        plain += not word.startswith("--") and not is_value
    assert any(p.nargs < 0 for p in takes) or plain <= len(takes), f"arguments of {command.name}"


def test_there_are_commands_to_check() -> None:
    named = {line.split()[1] for path, line in ALL_COMMANDS if line.startswith("lenspipe ")}
    assert set(get_command(cli.app).commands) <= named  # type: ignore[attr-defined]  # a group


# Links


def anchors(path: Path) -> set[str]:
    heads = re.findall(r"^#+ (.*)$", FENCE.sub("", path.read_text("utf-8")), re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}


@pytest.mark.parametrize("path", TEXTS, ids=ids(TEXTS))
def test_relative_links_resolve(path: Path) -> None:
    text = FENCE.sub("", path.read_text("utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        file = (path.parent / name).resolve() if name else path
        assert file.exists(), f"{path.name}: {target}"
        if anchor:
            assert anchor in anchors(file), f"{path.name}: {target}"


@pytest.mark.parametrize("path", PAGES, ids=ids(PAGES))
def test_tests_and_benchmarks_that_a_page_rests_on_exist(path: Path) -> None:
    text = path.read_text("utf-8")
    named = re.findall(r"`((?:tests|benchmarks)/[\w/.]+)`", text)
    commands = re.findall(r"python -m (benchmarks\.\w+|training[\w.]*|tests[\w.]*)", text)
    files = [*named, *(f"{name.replace('.', '/')}.py" for name in commands if "." in name)]
    real = [name for name in files if "NAME" not in name]
    assert [name for name in real if not (ROOT / name).exists()] == []


def test_every_page_is_in_the_index() -> None:
    index = (DOCS / "README.md").read_text("utf-8")
    for page in PAGES:
        if page.name != "README.md":
            assert f"({page.relative_to(DOCS)})" in index


def test_fragments_of_changes_have_a_number_and_a_kind() -> None:
    for path in (ROOT / "changes").iterdir():
        assert re.fullmatch(r"\d{4}-[a-z0-9-]+\.(feature|fix|doc)\.md", path.name), path.name
        assert path.read_text("utf-8").strip()
