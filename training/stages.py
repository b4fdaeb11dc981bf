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
from training import blend, fit, mining
from training.blend.calibration import calibrate
from training.data import (
    Examples,
    load_images,
    load_table,
    measure_features,
    real_objects,
    rows_of,
)
from training.evaluate import card_metrics, evaluate, thresholds_of, write_report
from training.export import (
    card_of,
    check_parity,
    export_graph,
    onnx_logits,
    ship,
)
from training.merging import load_arcs
from training.recipe import EnsembleRecipe, MemberRecipe, Recipe, StartFrom, digest
from training.together import joined
from training.unseen import check_unseen, learnt_from, lineage

logger = logging.getLogger(__name__)
# Stamps that torch and ONNX are compared on at every export.
PARITY_ROWS = 256


@dataclass(frozen=True)
class Workspace:
    """Where intermediate files lie, and what the machine has.

    device: of the training, None for a GPU where there is one. workers: simulation processes.
    address: of the Ray cluster that simulates instead, `local` for one of this machine alone.
    """

    root: Path
    device: str | None = None
    workers: int = 1
    address: str | None = None

    def data(self, recipe: Recipe, split: str) -> Path:
        """File of one set: two recipes with the same simulate block share it."""
        table = isinstance(recipe, MemberRecipe) and recipe.task == "photometry"
        block = recipe.simulate_block(split)
        stem = f"seed{block['seed']}-{digest(block)[:12]}"
        return self.root / "data" / (f"{stem}.parquet" if table else f"{stem}.h5")

    def member(self, recipe: MemberRecipe) -> Path:
        """Folder of one network's training."""
        return self.root / "members" / f"{recipe.name}-{recipe.sha256()[:12]}"

    def best(self, recipe: MemberRecipe) -> Path:
        """The checkpoint with a network's weights; of the last round where there are several."""
        last = (
            mining.round_folder(self.member(recipe), recipe.mining.rounds)
            if recipe.mining
            else None
        )
        return (last or self.member(recipe)) / fit.BEST

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
        from training.simulate.sets import simulate as make_stamps

        make_stamps(recipe.simulate_block(split), aside, work.workers, work.address)
    aside.replace(path)
    return path


def examples(recipe: Recipe, split: str, work: Workspace) -> Examples:
    """One set in memory; InputError where it was not simulated."""
    path = set_file(recipe, split, work)
    if isinstance(recipe, MemberRecipe) and recipe.task == "photometry":
        drop = recipe.drop_band if split in ("train", "validation") else 0.0
        return load_table(path, features(recipe, work), drop, recipe.seed)
    return load_images(path, both=split != "pool")


def set_file(recipe: Recipe, split: str, work: Workspace) -> Path:
    """The file of one set; InputError where it was not simulated."""
    path = work.data(recipe, split)
    if not path.exists():
        raise InputError(f"{recipe.name}: set {split}", f"a simulated file {path}", "none")
    return path


def features(recipe: MemberRecipe, work: Workspace) -> tuple[Feature, ...]:
    """The photometry network's features with the training set's means and scales."""
    chosen = [Feature(**choice.model_dump()) for choice in recipe.features]
    return measure_features(work.data(recipe, "train"), chosen) if chosen else ()


def train(recipe: MemberRecipe, work: Workspace) -> Path:
    """Train, or go on training; export the best network, compared with torch. Its ONNX file.

    In a group of processes every one calls this, and the first exports.
    """
    graph = work.graph(recipe)
    with joined(work.device) as group:
        if group.told(graph.exists()):
            return graph
        check_unseen(recipe)
        sets = learning_sets(recipe, work)
        fitted = fit_network(recipe, sets, work)
        if group.leads:
            export_fitted(recipe, fitted, sets.validation, graph)
        group.told(None)  # the others wait until it is there
    return graph


def learning_sets(recipe: MemberRecipe, work: Workspace) -> mining.Sets:
    """What a member's weights are made with."""
    return mining.Sets(
        train=examples(recipe, "train", work),
        validation=examples(recipe, "validation", work),
        pool=examples(recipe, "pool", work) if recipe.mining else None,
        arcs=load_arcs(set_file(recipe, "arcs", work)) if recipe.merging else None,
    )


def fit_network(recipe: MemberRecipe, sets: mining.Sets, work: Workspace) -> fit.Fitted:
    """The trained network, after rounds of mining where the recipe has them."""
    folder, begin = work.member(recipe), origin(recipe, work)
    if recipe.mining is not None:
        return mining.mine(recipe, recipe.mining, sets, folder, begin=begin, device=work.device)
    return fit.fit(
        recipe,
        sets.train,
        sets.validation,
        folder,
        arcs=sets.arcs,
        begin=begin,
        device=work.device,
    )


def origin(recipe: MemberRecipe, work: Workspace) -> StartFrom | None:
    """What a training begins with, as a checkpoint; None for new weights."""
    begin = recipe.start_from
    if begin is None or begin.recipe is None:
        return begin
    path = work.best(begin.recipe)
    if not path.exists():
        raise InputError("start_from.recipe", f"{begin.recipe.name}, trained", f"nothing at {path}")
    return StartFrom(checkpoint=str(path), replace=begin.replace, freeze=begin.freeze)


def export_fitted(
    recipe: MemberRecipe, fitted: fit.Fitted, validation: Examples, graph: Path
) -> None:
    """Write a trained network as ONNX, whole and equal to torch's or not at all."""
    aside = graph.with_name(f"part-{graph.name}")
    compared = rows_of(validation.inputs, slice(PARITY_ROWS))
    export_graph(fitted.model, compared, aside)
    difference = check_parity(fitted.model, aside, compared)
    logger.info("%s: epoch %d kept; ONNX within %.1e", recipe.name, fitted.epoch, difference)
    aside.replace(graph)


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
    write_report(work.report(recipe), test, {recipe.name: scores}, {recipe.name: found})
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
    scores = {recipe.name: blenders.blend(columns, blended.blender)}
    reports = {recipe.name: evaluate(scores[recipe.name], test, blended.thresholds)}
    for member in members:
        scores[member.name] = logits(member, recipe, "test", work)
        held = logits(member, recipe, "calibration", work)
        positive = examples(recipe, "calibration", work).positive
        thresholds = thresholds_of(held, positive, recipe.fprs)
        reports[member.name] = evaluate(scores[member.name], test, thresholds)
    write_report(work.report(recipe), test, scores, reports)
    return card_metrics(reports[recipe.name])


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
    made = [origin for member in members for origin in lineage(member)]
    sets += [set_file(member, split, work) for member in made for split in learnt_from(member)]
    return tuple(sorted({name for path in sets for name in real_objects(path)}))


def _columns(
    recipe: EnsembleRecipe, members: Sequence[MemberRecipe], split: str, work: Workspace
) -> Float[np.ndarray, "n member"]:
    return np.stack([logits(member, recipe, split, work) for member in members], axis=1)
