"""The stages from a recipe to a shipped model. Each keeps what it made, and is not done twice.

A file's name holds the hash of what made it: a changed recipe makes new files and leaves the old.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from jaxtyping import Float

from lenspipe import blenders
from lenspipe.errors import InputError
from lenspipe.models.card import Calibration, Feature, Metric, ModelCard, Threshold
from training import blend, fit
from training.blend.calibration import calibrate
from training.data import Examples, load_images, load_table, measure_features, real_objects
from training.evaluation import members as committee
from training.evaluation.judge import card_metrics, evaluate, thresholds_of
from training.evaluation.report import write_report
from training.evaluation.timing import seconds_per_image
from training.export import (
    card_of,
    check_parity,
    export_graph,
    onnx_logits,
    ship,
)
from training.recipe import EnsembleRecipe, MemberRecipe, Recipe, digest
from training.unseen import LEARNT_FROM, check_unseen

logger = logging.getLogger(__name__)
# Stamps that torch and ONNX are compared on at every export.
PARITY_ROWS = 256


@dataclass(frozen=True)
class Workspace:
    """Where intermediate files lie, and what the machine has.

    device: of the training, None for a GPU where there is one. workers: simulation processes.
    """

    root: Path
    device: str | None = None
    workers: int = 1

    def data(self, recipe: Recipe, split: str) -> Path:
        """File of one set: two recipes with the same simulate block share it."""
        table = isinstance(recipe, MemberRecipe) and recipe.task == "photometry"
        block = recipe.simulate_block(split)
        stem = f"seed{block['seed']}-{digest(block)[:12]}"
        return self.root / "data" / (f"{stem}.parquet" if table else f"{stem}.h5")

    def member(self, recipe: MemberRecipe) -> Path:
        """Folder of one network's training."""
        return self.root / "members" / f"{recipe.name}-{recipe.sha256()[:12]}"

    def graph(self, recipe: MemberRecipe) -> Path:
        """The exported network, not yet with its card."""
        return self.member(recipe) / "graph.onnx"

    def report(self, recipe: Recipe) -> Path:
        """Folder of the evaluation page."""
        return self.root / "reports" / recipe.name


def simulate(recipe: Recipe, split: str, work: Workspace) -> Path:
    """The file of one set, simulated unless it is there."""
    path = work.data(recipe, split)
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    logger.info("%s: simulate %s into %s", recipe.name, split, path.name)
    aside = path.with_name(f"part-{path.name}")
    aside.unlink(missing_ok=True)
    if path.suffix == ".parquet":
        from training.simulate.photometry import make_photometry

        make_photometry(recipe.simulate_block(split), aside)
    else:
        from training.simulate.dataset import simulate as make_stamps

        make_stamps(recipe.simulate_block(split), aside, work.workers)
    aside.replace(path)
    return path


def examples(recipe: Recipe, split: str, work: Workspace) -> Examples:
    """One set in memory; InputError where it was not simulated."""
    path = work.data(recipe, split)
    if not path.exists():
        raise InputError(f"{recipe.name}: set {split}", f"a simulated file {path}", "none")
    if isinstance(recipe, MemberRecipe) and recipe.task == "photometry":
        drop = recipe.drop_band if split in ("train", "validation") else 0.0
        return load_table(path, features(recipe, work), drop, recipe.seed)
    return load_images(path)


def features(recipe: MemberRecipe, work: Workspace) -> tuple[Feature, ...]:
    """The photometry network's features with the training set's means and scales."""
    chosen = [Feature(**choice.model_dump()) for choice in recipe.features]
    return measure_features(work.data(recipe, "train"), chosen) if chosen else ()


def train(recipe: MemberRecipe, work: Workspace) -> Path:
    """Train, or go on training; export the best network, compared with torch. Its ONNX file."""
    graph = work.graph(recipe)
    if graph.exists():
        return graph
    folder = work.member(recipe)
    training = examples(recipe, "train", work)
    validation = examples(recipe, "validation", work)
    fitted = fit.fit(recipe, training, validation, folder, device=work.device)
    aside = folder / "part-graph.onnx"
    export_graph(fitted.model, validation, aside)
    difference = check_parity(fitted.model, aside, validation.inputs[:PARITY_ROWS])
    logger.info("%s: epoch %d kept; ONNX within %.1e", recipe.name, fitted.epoch, difference)
    aside.replace(graph)
    return graph


def logits(
    member: MemberRecipe, recipe: Recipe, split: str, work: Workspace
) -> Float[np.ndarray, " n"]:
    """Logits of `member`'s exported network on a set of `recipe`, kept for the next call."""
    graph, data = work.graph(member), work.data(recipe, split)
    if not graph.exists():
        raise InputError(f"{member.name}", "a trained network (python -m training train)", "none")
    kept = work.member(member) / f"logits-{data.stem}.npy"
    if not kept.exists():
        found = onnx_logits(graph, examples(recipe, split, work).inputs)
        aside = kept.with_name(f"part-{kept.name}")
        np.save(aside, found)
        aside.replace(kept)
    values: Float[np.ndarray, " n"] = np.load(kept, allow_pickle=False)
    return values


def judge_member(
    recipe: MemberRecipe, work: Workspace
) -> tuple[tuple[Threshold, ...], dict[str, Metric]]:
    """Thresholds from the calibration set; figures, and a page of them, from the test set."""
    check_unseen(recipe)
    calibration, test = examples(recipe, "calibration", work), examples(recipe, "test", work)
    scores = logits(recipe, recipe, "calibration", work)
    thresholds = thresholds_of(scores, calibration.positive, recipe.fprs)
    scores = logits(recipe, recipe, "test", work)
    found = evaluate(scores, test, thresholds)
    found["seconds_per_image"] = seconds_per_image([work.graph(recipe)], test.inputs)
    write_report(work.report(recipe), test, {recipe.name: found}, thresholds)
    return thresholds, card_metrics(found)


def export_member(recipe: MemberRecipe, work: Workspace, zoo: Path) -> ModelCard:
    """The trained network with its card, figures in it, as `zoo/NAME.onnx`."""
    thresholds, metrics = judge_member(recipe, work)
    training = examples(recipe, "train", work)
    names = seen(recipe, (recipe,), work)
    card = card_of(recipe, training, features(recipe, work), thresholds, metrics, names)
    zoo.mkdir(parents=True, exist_ok=True)
    return ship(work.graph(recipe), card, zoo / f"{recipe.name}.onnx")


@dataclass(frozen=True)
class Blended:
    """An ensemble, fitted."""

    blender: blenders.BlenderOptions
    calibration: Calibration
    thresholds: tuple[Threshold, ...]


def fit_blend(recipe: EnsembleRecipe, members: Sequence[MemberRecipe], work: Workspace) -> Blended:
    """Blender, calibration and thresholds from the calibration set."""
    check_unseen(recipe, members)
    positive = examples(recipe, "calibration", work).positive
    columns = _columns(recipe, members, "calibration", work)
    blender = blend.fit(recipe.blender.name, recipe.blender.parameters, columns, positive)
    scores = blenders.blend(columns, blender)
    return Blended(
        blender,
        calibrate(recipe.calibration, scores, positive),
        thresholds_of(scores, positive, recipe.fprs),
    )


def judge_ensemble(
    recipe: EnsembleRecipe, members: Sequence[MemberRecipe], blended: Blended, work: Workspace
) -> dict[str, Metric]:
    """Figures of the ensemble, and a page with its members beside it, from the test set."""
    test = examples(recipe, "test", work)
    columns = _columns(recipe, members, "test", work)
    scores = blenders.blend(columns, blended.blender)
    found = evaluate(scores, test, blended.thresholds, blended.calibration)
    graphs = [work.graph(member) for member in members]
    found["seconds_per_image"] = seconds_per_image(graphs, test.inputs)
    told = committee.diversity(columns, test.positive, recipe.members, min(recipe.fprs))
    if told is not None:
        found["diversity"] = told
    reports = {recipe.name: found}
    for k, member in enumerate(members):
        held = logits(member, recipe, "calibration", work)
        positive = examples(recipe, "calibration", work).positive
        thresholds = thresholds_of(held, positive, recipe.fprs)
        reports[member.name] = evaluate(columns[:, k], test, thresholds)
        reports[member.name]["seconds_per_image"] = seconds_per_image([graphs[k]], test.inputs)
    write_report(work.report(recipe), test, reports, blended.thresholds)
    return card_metrics(found)


def export_ensemble(
    recipe: EnsembleRecipe,
    blended: Blended,
    metrics: Mapping[str, Metric],
    real: Sequence[str],
    zoo: Path,
) -> Path:
    """`zoo/NAME.yaml`, which `lenspipe.models.ensemble` reads; its members lie beside it.

    real: names of real objects that its making saw, see `seen`.
    """
    content = {
        "name": recipe.name,
        "description": recipe.description,
        "members": [f"{member}.onnx" for member in recipe.members],
        "blender": blended.blender.model_dump(mode="json"),
        "calibration": blended.calibration.model_dump(mode="json", exclude_defaults=True),
        "thresholds": [t.model_dump(mode="json") for t in blended.thresholds],
        "metrics": {name: metric.model_dump(mode="json") for name, metric in metrics.items()},
        "seen": list(real),
    }
    path = zoo / f"{recipe.name}.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False, width=100), encoding="utf-8")
    return path


def seen(recipe: Recipe, members: Sequence[MemberRecipe], work: Workspace) -> tuple[str, ...]:
    """Names of the real objects that the members' training, or a choice made for `recipe`, saw."""
    sets = [work.data(recipe, "calibration")]
    sets += [work.data(member, split) for member in members for split in LEARNT_FROM]
    return tuple(sorted({name for path in sets for name in real_objects(path)}))


def _columns(
    recipe: EnsembleRecipe, members: Sequence[MemberRecipe], split: str, work: Workspace
) -> Float[np.ndarray, "n member"]:
    return np.stack([logits(member, recipe, split, work) for member in members], axis=1)
