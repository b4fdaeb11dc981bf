"""From recipes to shipped models on toy sets; what ships is what was trained and judged."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import typer
import yaml
from typer.testing import CliRunner

from lenspipe.errors import InputError
from lenspipe.models import self_test
from lenspipe.models.card import ModelCard, file_sha256, read_card
from lenspipe.models.ensemble_file import read_spec
from training import cli, fit, network, pipeline, stages
from training.data import load_images, rows_of, without_a_band
from training.explain import own_scales
from training.export import PARITY, check_parity, export_graph, onnx_logits
from training.recipe import EnsembleRecipe, MemberRecipe, Named, Recipe, load_member
from training.workspace import Workspace

MakeSet = Callable[[Path, int, int], Path]
MEAN = Named(name="mean")
FEATURES = [
    {"kind": "magnitude", "a": "i_mag"},
    {"kind": "colour", "a": "g_mag", "b": "i_mag"},
    {"kind": "missing", "a": "g_mag"},
]


def make_table(path: Path, seed: int, n: int) -> None:
    """Lenses are blue; one g magnitude in ten is missing."""
    draw = np.random.default_rng(seed)
    label = (np.arange(n) % 2).astype(np.uint8)
    i_mag = draw.normal(19.0, 1.0, n)
    g_mag = i_mag + 2.0 - 1.5 * label + draw.normal(0.0, 0.4, n)
    g_mag[draw.random(n) < 0.1] = np.nan
    pq.write_table(pa.table({"g_mag": g_mag, "i_mag": i_mag, "label": label}), path)


def photometry_recipe(content: dict[str, Any]) -> dict[str, Any]:
    kept = {k: v for k, v in content.items() if k not in ("normalisation", "augmentation")}
    parameters = {"widths": [16, 16]}
    splits = content["splits"].items()
    return {
        **kept,
        "splits": {name: {"seed": s["seed"], "sources": s["n"]} for name, s in splits},
        "name": "toy-photometry",
        "task": "photometry",
        "simulate": {**content["simulate"], "data": None},
        "features": FEATURES,
        "architecture": {"name": "photometry_mlp", "parameters": parameters},
    }


@pytest.fixture(scope="module")
def made(
    tmp_path_factory: pytest.TempPathFactory, make_set: MakeSet
) -> tuple[Path, Workspace, tuple[Recipe, ...]]:
    """A zoo made from four recipes, its workspace and the recipes."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("pipeline")
    folder, work = root / "recipes", Workspace(root / "work", device="cpu")
    folder.mkdir()
    for content in toy_recipes():
        (folder / f"{content['name']}.yaml").write_text(yaml.safe_dump(content))
    recipes = pipeline.load_folder(folder)
    for recipe in recipes:
        for split in recipe.splits.given():
            path, block = work.data(recipe, split), recipe.simulate_block(split)
            path.parent.mkdir(parents=True, exist_ok=True)
            make = make_table if path.suffix == ".parquet" else make_set
            make(path, block["seed"], int(block.get("n") or block["sources"]))
    pipeline.make_all(recipes, work, root / "zoo")
    return root, work, recipes


def toy_recipes() -> list[dict[str, Any]]:
    common: dict[str, Any] = {
        "task": "lens_finding",
        "description": "finds rings",
        "simulate": {"instrument": "toy"},
        "normalisation": {"name": "asinh", "parameters": {"softening": [1.0, 2.0]}},
        "optimiser": {"learning_rate": 0.01},
        "epochs": 2,
        "batch_size": 32,
        "ema_decay": 0.9,
        "fprs": [0.05],
        "seed": 5,
    }
    shared = {"calibration": {"n": 400, "seed": 3}, "test": {"n": 400, "seed": 4}}
    own = [
        {"train": {"n": 256, "seed": 10 + k}, "validation": {"n": 128, "seed": 20 + k}, **shared}
        for k in range(3)
    ]
    plain = {"kernels": [5, 3, 3], "widths": [4, 8, 8], "dense": [16, 8]}
    return [
        {
            **common,
            "name": "toy-plain",
            "splits": own[0],
            "architecture": {"name": "holismokes_cnn", "parameters": plain},
        },
        {
            **common,
            "name": "toy-group",
            "splits": own[1],
            "architecture": {"name": "group_cnn", "parameters": {"fields": [2, 3]}},
        },
        photometry_recipe({**common, "splits": own[2]}),
        {
            "name": "toy-gri",
            "task": "ensemble",
            "description": "both",
            "simulate": common["simulate"],
            "splits": shared,
            "members": ["toy-plain", "toy-group"],
            "cascade": {"first": "toy-plain", "tpr_loss": 0.05, "fpr": 0.05},
            "fprs": [0.05],
        },
    ]


def the(recipes: tuple[Recipe, ...], name: str) -> MemberRecipe:
    found = next(recipe for recipe in recipes if recipe.name == name)
    assert isinstance(found, MemberRecipe)
    return found


Made = tuple[Path, Workspace, tuple[Recipe, ...]]


def card_in(made: Made, name: str) -> ModelCard:
    return read_card(made[0] / "zoo" / f"{name}.onnx")


def test_cards_say_what_made_the_weights_and_what_they_are_worth(made: Made) -> None:
    card, recipe = card_in(made, "toy-plain"), the(made[2], "toy-plain")
    assert card.training.recipe_sha256 == recipe.sha256()
    assert (card.training.n_train, card.training.seed) == (256, 5)
    stem = made[1].data(recipe, "train").stem
    assert card.training.training_set == f"{stem} (256 stamps)"
    assert card.self_test is not None
    assert len(card.self_test.logits) == self_test.ROWS
    image = card.images[0]
    assert (image.bands, image.size_pixels, image.zero_point_mag) == (("g", "r"), 16, 25.0)
    assert card.normalisation is not None
    assert card.normalisation.in_graph
    assert [(t.fpr, t.n_negatives) for t in card.thresholds] == [(0.05, 200)]
    auroc = card.metrics["auroc"]
    assert 0.8 < auroc.interval[0] <= auroc.value <= auroc.interval[1] <= 1.0
    assert (auroc.n_positives, auroc.n_negatives) == (200, 200)
    assert "tpr_at_fpr_0.05" in card.metrics
    assert "tpr_at_fpr_0.001" not in card.metrics
    assert "1 real host galaxies and 7 real source galaxies" in auroc.note
    stated = card.score_distribution
    assert stated is not None
    assert stated.population.startswith("non-lenses of the test set ")
    assert sum(stated.counts) == auroc.n_negatives


def test_cards_and_ensembles_name_the_real_objects_that_their_making_saw(made: Made) -> None:
    """Toy sets hold one host, named after the seed: 10 and 20, 11 and 21 trained, 3 calibrated;
    and seven sources."""
    sources = tuple(f"source-{k}" for k in range(7))
    objects = card_in(made, "toy-plain").training.real_objects
    assert objects == ("host-10", "host-20", "host-3", *sources)
    assert card_in(made, "toy-photometry").training.real_objects == ()
    ensemble = yaml.safe_load((made[0] / "zoo" / "toy-gri.yaml").read_text())
    hosts = [f"host-{seed}" for seed in (10, 11, 20, 21, 3)]
    assert ensemble["seen"] == [*hosts, *sources]


def test_an_ensemble_states_how_scores_of_non_lenses_lie(made: Made) -> None:
    ensemble = read_spec(made[0] / "zoo" / "toy-gri.yaml")
    stated = ensemble.score_distribution
    assert stated is not None
    assert sum(stated.counts) == ensemble.metrics["auroc"].n_negatives
    assert stated.population.startswith("non-lenses of the test set ")


def test_a_card_names_every_set_that_the_weights_depend_on(made: Made) -> None:
    recipe = the(made[2], "toy-photometry")
    sets = card_in(made, "toy-photometry").training.sets
    assert [(s.recipe, s.use, s.n, s.n_taken) for s in sets] == [
        ("toy-photometry", "train", 256, 256),
        ("toy-photometry", "validation", 128, 128),
    ]
    assert [s.sha256 for s in sets] == [
        file_sha256(made[1].data(recipe, split)) for split in ("train", "validation")
    ]


def test_logits_of_a_set_that_was_made_anew_are_not_the_kept_ones(
    made: Made, tmp_path: Path, make_set: MakeSet
) -> None:
    recipe, work = the(made[2], "toy-plain"), Workspace(tmp_path)
    shutil.copytree(made[1].root, work.root, dirs_exist_ok=True)
    before = stages.logits(recipe, recipe, "test", work)
    assert np.array_equal(stages.logits(recipe, recipe, "test", work), before)
    make_set(work.data(recipe, "test"), 99, 400)  # another set under the same name
    after = stages.logits(recipe, recipe, "test", work)
    test = stages.examples(recipe, "test", work)
    assert not np.array_equal(after, before)
    np.testing.assert_array_equal(after, onnx_logits(work.graph(recipe), test.inputs))
    shutil.copy(work.graph(the(made[2], "toy-group")), work.graph(recipe))
    other = stages.logits(recipe, recipe, "test", work)
    np.testing.assert_array_equal(other, onnx_logits(work.graph(recipe), test.inputs))


def test_a_card_of_a_training_set_that_was_made_anew_is_refused(
    made: Made, tmp_path: Path, make_set: MakeSet
) -> None:
    recipe, work = the(made[2], "toy-plain"), Workspace(tmp_path / "work")
    shutil.copytree(made[1].root, work.root)
    make_set(work.data(recipe, "train"), 99, 256)
    with pytest.raises(InputError, match=r"toy-plain: set train: expected SHA-256 .* trained on"):
        stages.export_member(recipe, work, tmp_path)


@pytest.mark.parametrize("name", ["toy-plain", "toy-group", "toy-photometry"])
def test_the_shipped_graph_is_the_trained_network(made: Made, name: str) -> None:
    """Of the logits, within PARITY of 1 + |logit|: float32 sums in another order, no more."""
    root, work, recipes = made
    recipe = the(recipes, name)
    test = stages.examples(recipe, "test", work)
    fitted = fit.load_best(recipe, test.shapes, work.member(recipe))
    with torch.no_grad():
        wanted = fitted.model(*map(torch.from_numpy, test.inputs.values())).numpy()
    for rows in (1, 7, 400):
        some = rows_of(test.inputs, slice(rows))
        found = onnx_logits(root / "zoo" / f"{name}.onnx", some, threads=1)
        assert found.shape == (rows,)
        np.testing.assert_allclose(found, wanted[:rows], rtol=PARITY, atol=PARITY)


def test_an_export_does_not_warn_of_what_no_network_uses(
    made: Made, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _, work, recipes = made
    recipe = the(recipes, "toy-plain")
    inputs = stages.examples(recipe, "test", work).inputs
    model = network.build(recipe, {name: array.shape[1:] for name, array in inputs.items()})
    export_graph(model, inputs, tmp_path / "graph.onnx")
    assert "torchvision" not in caplog.text


def test_another_network_fails_the_parity_check(made: Made, tmp_path: Path) -> None:
    _, work, recipes = made
    recipe = the(recipes, "toy-plain")
    test = stages.examples(recipe, "test", work)
    fitted = fit.load_best(recipe, test.shapes, work.member(recipe))
    export_graph(fitted.model, test.inputs, tmp_path / "graph.onnx")
    with torch.no_grad():
        next(fitted.model.parameters()).mul_(1.05)
    with pytest.raises(RuntimeError, match="differ by"):
        check_parity(fitted.model, tmp_path / "graph.onnx", rows_of(test.inputs, slice(64)))


def test_the_graph_takes_any_batch_and_names_its_tensors(made: Made) -> None:
    graph = onnx.load(made[0] / "zoo" / "toy-plain.onnx").graph
    shape = graph.input[0].type.tensor_type.shape.dim
    assert graph.input[0].name == "image"
    assert shape[0].dim_param
    assert [d.dim_value for d in shape[1:]] == [2, 16, 16]
    assert [(o.name, len(o.type.tensor_type.shape.dim)) for o in graph.output] == [("logit", 1)]


def test_photometry_features_carry_the_training_sets_mean_and_scale(made: Made) -> None:
    card = card_in(made, "toy-photometry")
    table = pq.read_table(made[1].data(the(made[2], "toy-photometry"), "train"))
    colour = table["g_mag"].to_numpy() - table["i_mag"].to_numpy()
    assert card.features[1].mean == pytest.approx(np.nanmean(colour), rel=1e-5)
    assert card.features[1].scale == pytest.approx(np.nanstd(colour), rel=1e-5)
    assert (card.features[2].mean, card.features[2].scale) == (0.0, 1.0)
    assert card.metrics["auroc"].value > 0.9


def test_production_reads_the_ensemble_and_scores_as_training_did(made: Made) -> None:
    """Of the ensemble's scores, within float32: the same graphs, blender and cascade."""
    from lenspipe.models.ensemble import load_ensemble

    root, work, recipes = made
    ensemble = load_ensemble(str(root / "zoo" / "toy-gri.yaml"), provider="cpu")
    described = ensemble.description
    assert described.member_names == ("toy-plain", "toy-group")
    test = load_images(work.data(the(recipes, "toy-plain"), "test"))
    scores = ensemble.score(dict(test.inputs)).score
    above = (scores > described.threshold(0.05).score)[~test.positive].mean()
    report = json.loads((work.root / "reports" / "toy-gri" / "evaluation.json").read_text())
    found = report["models"]["toy-gri"]["at_threshold"]["fpr_0.05"]
    assert found["fpr"]["value"] == pytest.approx(above, abs=1e-9)
    assert set(found["fpr_by_kind"]) == {"spiral", "star"}
    assert "1 to 1.5" in found["completeness_by"]["theta_e_arcsec"]
    assert described.spec.calibration is not None
    assert described.spec.calibration.prevalence == 0.5


def test_the_evaluation_tells_what_the_cascade_costs_and_how_members_err(made: Made) -> None:
    report = json.loads((made[1].root / "reports" / "toy-gri" / "evaluation.json").read_text())
    cascade = report["models"]["toy-gri"]["cascade"]
    low, high = cascade["tpr_loss_interval"]
    assert 0.0 <= low <= cascade["tpr_loss"] <= high <= 0.2
    assert 0.0 < cascade["asked"] < 1.0
    [pair] = report["models"]["toy-gri"]["diversity"]["pairs"]
    assert pair["members"] == ["toy-plain", "toy-group"]
    timed = json.loads((made[1].root / "reports" / "toy-gri" / "cascade.json").read_text())
    assert timed["rows"] == stages.TIMED_ROWS
    assert 0.0 < timed["asked"] < 1.0
    assert 0.0 < timed["time_ratio_median"] < 2.0


def test_a_second_call_makes_nothing_anew(made: Made) -> None:
    root, work, recipes = made
    before = {p: p.stat().st_mtime_ns for p in (work.root / "members").rglob("*.*")}
    assert before
    zoo = {p.name: p.read_bytes() for p in (root / "zoo").iterdir()}
    pipeline.make_all(recipes, work, root / "zoo")
    assert {p: p.stat().st_mtime_ns for p in (work.root / "members").rglob("*.*")} == before
    assert {p.name: p.read_bytes() for p in (root / "zoo").iterdir()} == zoo


@pytest.mark.slow
def test_networks_trained_side_by_side_are_the_same(made: Made, tmp_path: Path) -> None:
    _, work, recipes = made
    aside = Workspace(tmp_path, device="cpu")
    (tmp_path / "data").symlink_to(work.root / "data")
    members = [the(recipes, "toy-plain"), the(recipes, "toy-group")]
    with pipeline.Trainers(aside, at_once=2) as trainers:
        for member in members:
            trainers.begin(member)
    for member in members:
        inputs = stages.examples(member, "test", work).inputs
        found = [onnx_logits(place.graph(member), inputs, threads=1) for place in (work, aside)]
        # The processes may use more threads, which changes the order of sums in training.
        np.testing.assert_allclose(found[0], found[1], atol=0.05)


def test_a_pipeline_can_simulate_on_a_cluster(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Workspace] = []
    monkeypatch.setattr(pipeline, "make_all", lambda _, work, *_more: asked.append(work))
    app = typer.Typer()
    app.command()(pipeline.main)
    folders = [str(made[0] / "recipes"), "--work", str(tmp_path), "--zoo", str(tmp_path)]
    done = CliRunner().invoke(app, [*folders, "--address", "auto"])
    assert done.exit_code == 0, done.output
    assert [work.address for work in asked] == ["auto"]


def test_a_set_that_is_absent_is_named(made: Made, tmp_path: Path) -> None:
    recipe = the(made[2], "toy-plain")
    with pytest.raises(InputError, match="toy-plain: set train: expected a simulated file"):
        stages.train(recipe, Workspace(tmp_path))


def test_the_page_shows_the_figures(made: Made) -> None:
    page = (made[1].root / "reports" / "toy-gri" / "index.html").read_text()
    assert "not supported by this sample" in page
    assert "<h2>toy-group</h2>" in page
    assert (made[1].root / "reports" / "toy-gri" / "roc.png").stat().st_size > 1000


def test_commands_fail_in_one_line_with_status_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text("task: lens_finding\nname: x\n")
    monkeypatch.setattr("sys.argv", ["training", "train", str(recipe)])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 2
    assert capsys.readouterr().err.strip().count("\n") == 0


def test_commands_do_a_blend_again(made: Made, tmp_path: Path) -> None:
    root, work, _ = made
    recipe = str(root / "recipes" / "toy-gri.yaml")
    arguments = ["export", recipe, "--work", str(work.root), "--zoo", str(tmp_path / "zoo")]
    result = CliRunner().invoke(cli.app, arguments)
    assert result.exit_code == 0, result.output
    assert sorted(p.name for p in (tmp_path / "zoo").iterdir()) == [
        "toy-gri.yaml",
        "toy-group.onnx",
        "toy-plain.onnx",
    ]


def test_the_page_and_the_file_tell_of_the_cascade_that_was_timed_once(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Members' times change places at each measurement: the first one stands in all commands."""
    root = tmp_path
    shutil.copytree(made[1].root, root / "work")
    shutil.copytree(made[0] / "recipes", root / "recipes")
    recipe = root / "recipes" / "toy-gri.yaml"
    content = yaml.safe_load(recipe.read_text())
    content["cascade"]["first"] = "auto"
    recipe.write_text(yaml.safe_dump(content))
    times = iter([1.0, 1e3, 1e-3, 1e6])

    def timed(graphs: dict[str, Path], *_: Any) -> dict[str, np.ndarray]:
        return {"toy-plain": np.array([next(times)]), "toy-group": np.array([1.0])}

    monkeypatch.setattr(stages, "seconds_in_turns", timed)
    told = []
    for command in ("evaluate", "blend", "export"):
        arguments = [command, str(recipe), "--work", str(root / "work")]
        arguments += [] if command == "evaluate" else ["--zoo", str(root / "zoo")]
        (root / "zoo").mkdir(exist_ok=True)
        shutil.copytree(made[0] / "zoo", root / "zoo", dirs_exist_ok=True)
        result = CliRunner().invoke(cli.app, arguments)
        assert result.exit_code == 0, result.output
        report = json.loads((root / "work/reports/toy-gri/evaluation.json").read_text())
        told.append(report["models"]["toy-gri"]["cascade"]["chosen"])
        assert told[-1].pop("seconds") == {"toy-plain": 1.0, "toy-group": 1.0}
        if command != "evaluate":
            told.append(yaml.safe_load((root / "zoo/toy-gri.yaml").read_text())["cascade"])
    assert all(one == told[0] for one in told)


def test_another_calibration_set_or_blender_is_fitted_anew(
    made: Made, tmp_path: Path, make_set: MakeSet
) -> None:
    work = Workspace(tmp_path / "work")
    shutil.copytree(made[1].root, work.root)
    recipe = next(r for r in made[2] if isinstance(r, EnsembleRecipe))
    members = tuple(the(made[2], name) for name in recipe.members)
    first = stages.fit_blend(recipe, members, work)
    assert stages.fit_blend(recipe.model_copy(update={"int8": True}), members, work) == first
    mean = recipe.model_copy(update={"blender": recipe.blender.model_copy(update={"name": "mean"})})
    assert stages.fit_blend(mean, members, work).blender.kind == "mean"
    make_set(work.data(recipe, "calibration"), 98, 400)
    other = stages.fit_blend(recipe, members, work)
    assert other.thresholds != first.thresholds
    assert len(list((work.root / "blends").iterdir())) == 3


def test_a_map_of_what_spoke_for_a_lens(made: Made) -> None:
    root, work, _ = made
    recipe = str(root / "recipes" / "toy-plain.yaml")
    arguments = ["explain", recipe, "--work", str(work.root), "--rows", "2"]
    result = CliRunner().invoke(cli.app, arguments)
    assert result.exit_code == 0, result.output
    assert (work.root / "reports" / "toy-plain" / "occlusion.png").stat().st_size > 1000


def test_every_map_has_a_scale_of_its_own() -> None:
    maps = np.stack([np.full((4, 4), 8.0), np.eye(4) * -0.02, np.zeros((4, 4))])
    scaled, reach = own_scales(maps)
    assert reach.tolist() == [8.0, 0.02, 0.0]
    assert np.abs(scaled).max(axis=(1, 2)).tolist() == [1.0, 1.0, 0.0]
    assert scaled[1].min() == -1.0


def test_an_ensemble_of_one_ships_a_network_with_calibrated_probabilities(
    made: Made, tmp_path: Path
) -> None:
    from lenspipe.models.ensemble import load_ensemble

    root, work, recipes = made
    shutil.copy(root / "zoo" / "toy-plain.onnx", tmp_path)
    [both] = [recipe for recipe in recipes if isinstance(recipe, EnsembleRecipe)]
    one = both.model_copy(
        update={"name": "one", "members": ("toy-plain",), "cascade": None, "blender": MEAN}
    )
    pipeline.make_ensemble(one, (the(recipes, "toy-plain"),), work, tmp_path)
    ensemble = load_ensemble(str(tmp_path / "one.yaml"), provider="cpu")
    calibration = ensemble.description.spec.calibration
    assert calibration is not None
    assert calibration.kind == "platt"
    inputs = load_images(work.data(the(recipes, "toy-plain"), "test")).inputs
    alone = load_ensemble(str(tmp_path / "toy-plain.onnx"), provider="cpu").score(dict(inputs))
    found = ensemble.score(dict(inputs))
    np.testing.assert_allclose(found.score, alone.score, rtol=1e-6)
    assert calibration.slope is not None
    assert calibration.intercept is not None
    logit = calibration.slope * found.score + calibration.intercept
    np.testing.assert_allclose(found.probability, 1 / (1 + np.exp(-logit)), rtol=1e-5)


def test_a_fraction_of_rows_loses_one_band() -> None:
    table = pa.table({"g_mag": np.ones(4000), "i_mag": np.ones(4000), "other": np.ones(4000)})
    dropped = without_a_band(table, ["g_mag", "i_mag"], 0.2, seed=1)
    lost = np.isnan(np.stack([dropped[name].to_numpy() for name in table.column_names]))
    assert lost.sum(axis=0).max() == 1
    assert lost.mean(axis=1) == pytest.approx([0.1, 0.1, 0.0], abs=0.02)


def test_export_writes_half_and_int8_beside_the_network(made: Made, tmp_path: Path) -> None:
    root, work, recipes = made
    recipe = str(root / "recipes" / "toy-plain.yaml")
    arguments = ["export", recipe, "--work", str(work.root), "--zoo", str(tmp_path / "zoo")]
    result = CliRunner().invoke(cli.app, [*arguments, "--half", "--int8"])
    assert result.exit_code == 0, result.output
    verdict = json.loads((work.report(the(recipes, "toy-plain")) / "int8.json").read_text())
    assert (verdict["fpr"], verdict["n_negatives"]) == (0.05, 200)
    assert verdict["method"] == "percentile"
    judged = work.data(the(recipes, "toy-plain"), "test")
    assert verdict["judged_on"]["sha256"] == file_sha256(judged)
    assert verdict["rule"].startswith("one-sided")
    found = {path.name for path in (tmp_path / "zoo").iterdir()}
    assert "toy-plain-fp16.onnx" in found
    assert ("toy-plain-int8.onnx" in found) == verdict["accepted"]
    assert not any(name.endswith(".part") for name in found)
    assert ("no int8" in result.output) == (not verdict["accepted"])


def test_the_recipe_says_how_int8_ranges_are_made(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the network that is trained already."""
    from training import quantise

    monkeypatch.setattr(quantise, "AUROC_LOSS", 1.0)
    monkeypatch.setattr(quantise, "TPR_LOSS", 1.0)
    root, work, recipes = made
    content = yaml.safe_load((root / "recipes" / "toy-plain.yaml").read_text())
    (tmp_path / "r.yaml").write_text(yaml.safe_dump({**content, "int8": {"method": "minmax"}}))
    recipe = load_member(tmp_path / "r.yaml")
    assert work.member(recipe) == work.member(the(recipes, "toy-plain"))
    shutil.copy(root / "zoo" / "toy-plain.onnx", tmp_path)
    path, verdict = stages.export_int8(recipe, work, tmp_path)
    assert path is not None
    assert verdict.accepted
    assert "ranges by minmax" in read_card(path).description
    assert json.loads((work.report(recipe) / "int8.json").read_text())["method"] == "minmax"


def test_a_blend_beside_networks_that_are_not_there_is_refused_before_any_work(
    made: Made, tmp_path: Path
) -> None:
    root, work, recipes = made
    zoo = tmp_path / "zoo"
    members = (the(recipes, "toy-plain"), the(recipes, "toy-group"))
    with pytest.raises(
        InputError, match=r"toy-plain\.onnx: expected .*training export.*, found none"
    ):
        pipeline.require_exported(members, zoo)
    zoo.mkdir()
    for member in members:
        shutil.copy(root / "zoo" / f"{member.name}.onnx", zoo)
    pipeline.require_exported(members, zoo)
    other = members[1].model_copy(update={"seed": members[1].seed + 1})
    with pytest.raises(InputError, match=r"toy-group\.onnx: .*found one by another recipe"):
        pipeline.require_exported((members[0], other), zoo)
    blend = ["blend", str(root / "recipes/toy-gri.yaml"), "--work", str(work.root)]
    result = CliRunner().invoke(cli.app, [*blend, "--zoo", str(tmp_path / "none")])
    assert isinstance(result.exception, InputError)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("within", [1.0, -1.0], ids=["accepted", "refused"])
def test_an_ensemble_takes_int8_where_the_rule_accepts_it(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, within: float
) -> None:
    """The rule is set to take all, and nothing: what is left in the zoo and in the file."""
    from lenspipe.models.ensemble import load_ensemble
    from training import quantise

    monkeypatch.setattr(quantise, "AUROC_LOSS", within)
    monkeypatch.setattr(quantise, "TPR_LOSS", 1.0)
    root, work, recipes = made
    ensemble = next(r for r in recipes if r.name == "toy-gri")
    assert isinstance(ensemble, EnsembleRecipe)
    members = tuple(the(recipes, name) for name in ensemble.members)
    zoo = tmp_path / "zoo"
    shutil.copytree(root / "zoo", zoo)
    wanted = ensemble.model_copy(update={"int8": True})
    path = pipeline.make_ensemble(wanted, members, work, zoo)
    variants = [f"{name}-int8" for name in ensemble.members] if within > 0 else []
    loaded = load_ensemble(str(path), provider="cpu")
    assert loaded.description.variants("cpu") == variants
    assert sorted(file.stem for file in zoo.glob("*-int8*")) == sorted(variants)
    assert loaded.member_names == ensemble.members
