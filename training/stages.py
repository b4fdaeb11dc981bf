"""The stages from a recipe to a shipped model. Each keeps what it made, and is not done twice.

A file's name holds the hash of what made it: a changed recipe makes new files and leaves the old.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from jaxtyping import Float

from lenspipe import blenders
from lenspipe.errors import InputError
from lenspipe.models.card import Feature, Metric, ModelCard, ScoreDistribution, Threshold
from lenspipe.models.ensemble_file import Cascade, describe_ensemble
from training import blend, fit, mining
from training.blend.calibration import calibrate
from training.blend.cascade import (
    CascadeChoice,
    cascaded,
    fit_cascade,
    judge_cascade,
    time_ratio,
)
from training.blend.diversity import diversity
from training.blended import Blended, keep, kept
from training.data import (
    Examples,
    load_images,
    load_table,
    measure_features,
    real_objects,
    rows_of,
)
from training.evaluation.judge import card_metrics, evaluate, scores_of_others, thresholds_of
from training.evaluation.report import write_report
from training.export import card_of, check_parity, export_graph, onnx_logits, ship
from training.half import make_half
from training.learnt import learnt_sets, refuse_other_sets, write_learnt
from training.merging import load_arcs
from training.quantise import CALIBRATION_ROWS, Verdict, accept, make_int8
from training.recipe import EnsembleRecipe, MemberRecipe, Recipe, StartFrom, digest
from training.sound import DRAWN_FROM, check_batch, check_kinds, check_simulated_kinds
from training.timing import seconds_in_turns, seconds_per_image
from training.together import joined
from training.unseen import check_unseen, learnt_from, lineage
from training.views import Viewed
from training.workspace import Workspace, known_sha256, set_file, write_whole

logger = logging.getLogger(__name__)
# Stamps that torch and ONNX are compared on at every export.
PARITY_ROWS = 256
# Stamps that networks are timed on.
TIMED_ROWS = 256


def simulate(recipe: Recipe, split: str, work: Workspace) -> Path:
    """The file of one set, simulated unless it is there. InputError where a member names kinds of
    sources that its sets will not hold."""
    path = work.data(recipe, split)
    if path.exists():
        return path
    if isinstance(recipe, MemberRecipe) and recipe.task == "lens_finding":
        drawn = [name for name in DRAWN_FROM if name in recipe.splits.given()]
        # A set that is there may be somebody's own, of other kinds; training looks into it.
        if not any(work.data(recipe, name).exists() for name in drawn):
            check_simulated_kinds(recipe)
    path.parent.mkdir(parents=True, exist_ok=True)
    logger.info("%s: simulate %s into %s", recipe.name, split, path.name)
    aside = path.with_name(f"part-{path.name}")
    if aside.is_file():
        aside.unlink()
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
        if group.leads:
            refuse_other_sets(recipe, work)
        fitted = fit_network(recipe, sets, work)
        if group.leads:
            write_learnt(recipe, work)
            export_fitted(recipe, fitted, sets.validation, graph)
        group.told(None)  # the others wait until it is there
    return graph


def learning_sets(recipe: MemberRecipe, work: Workspace) -> mining.Sets:
    """What a member's weights are made with. InputError where the recipe names what is not in
    them."""
    sets = mining.Sets(
        train=examples(recipe, "train", work),
        validation=examples(recipe, "validation", work),
        pool=examples(recipe, "pool", work) if recipe.mining else None,
        arcs=load_arcs(set_file(recipe, "arcs", work)) if recipe.merging else None,
    )
    check_kinds(recipe, *(one for one in (sets.train, sets.pool) if one is not None))
    check_batch(recipe, len(sets.train))
    return sets


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
    model = Viewed(fitted.model, recipe.views) if recipe.views else fitted.model
    export_graph(model, compared, aside)
    difference = check_parity(model, aside, compared)
    logger.info("%s: epoch %d kept; ONNX within %.1e", recipe.name, fitted.epoch, difference)
    aside.replace(graph)


def logits(
    member: MemberRecipe, recipe: Recipe, split: str, work: Workspace
) -> Float[np.ndarray, " n"]:
    """Logits of `member`'s exported network on a set of `recipe`, kept for the next call."""
    graph, data = work.graph(member), set_file(recipe, split, work)
    if not graph.exists():
        raise InputError(f"{member.name}", "a trained network (python -m training train)", "none")
    path = work.member(member) / f"logits-{data.stem}-{logits_key(member, data, work)}.npy"
    if not path.exists():
        found = onnx_logits(graph, examples(recipe, split, work).inputs)
        aside = path.with_name(f"part-{path.name}")
        np.save(aside, found)
        aside.replace(path)
    values: Float[np.ndarray, " n"] = np.load(path, allow_pickle=False)
    return values


def logits_key(member: MemberRecipe, data: Path, work: Workspace) -> str:
    """What logits depend on, hashed: the network, the set, and what standardises its features."""
    files = [work.graph(member), data]
    files += [set_file(member, "train", work)] if member.features else []
    return digest([known_sha256(path) for path in files])[:16]


def judge_member(
    recipe: MemberRecipe, work: Workspace
) -> tuple[tuple[Threshold, ...], dict[str, Metric], ScoreDistribution | None]:
    """Thresholds from the calibration set; figures, page and others' scores from the test set."""
    check_unseen(recipe)
    calibration, test = examples(recipe, "calibration", work), examples(recipe, "test", work)
    scores = logits(recipe, recipe, "calibration", work)
    thresholds = thresholds_of(scores, calibration.positive, recipe.fprs)
    scores = logits(recipe, recipe, "test", work)
    found = evaluate(scores, test, thresholds)
    found["seconds_per_image"] = seconds_per_image({recipe.name: work.graph(recipe)}, test.inputs)
    write_report(work.report(recipe), test, {recipe.name: found}, thresholds)
    return thresholds, card_metrics(found), scores_of_others(scores, test)


def export_member(recipe: MemberRecipe, work: Workspace, zoo: Path) -> ModelCard:
    """The trained network with its card, figures in it, as `zoo/NAME.onnx`."""
    thresholds, metrics, scores = judge_member(recipe, work)
    training, sets = examples(recipe, "train", work), learnt_sets(recipe, work)
    if training.sha256 != (learnt := sets[0].sha256):
        field = f"{recipe.name}: set train"
        raise InputError(field, f"SHA-256 {learnt}, which was trained on", training.sha256)
    names = seen(recipe, (recipe,), work)
    card = card_of(
        recipe, training, features(recipe, work), thresholds, metrics, names, sets, scores
    )
    zoo.mkdir(parents=True, exist_ok=True)
    return ship(work.graph(recipe), card, zoo / f"{recipe.name}.onnx")


def export_half(recipe: MemberRecipe, work: Workspace, zoo: Path) -> Path:
    """The exported network in half precision, for GPUs, as `zoo/NAME-fp16.onnx`."""
    path = zoo / f"{recipe.name}-fp16.onnx"
    apart = make_half(zoo / f"{recipe.name}.onnx", path, _some(recipe, "train", work))
    logger.info("%s: half precision, logits within %.2g", recipe.name, apart)
    return path


def export_int8(recipe: MemberRecipe, work: Workspace, zoo: Path) -> tuple[Path | None, Verdict]:
    """The exported network in int8, for CPUs, as `zoo/NAME-int8.onnx`, its ranges from training
    stamps; None where it loses too much on the test set, by `training.quantise.accept`.

    The verdict is kept as `int8.json` beside the evaluation.
    """
    path, aside = zoo / f"{recipe.name}-int8.onnx", zoo / f"{recipe.name}-int8.part"
    method = recipe.int8.method
    make_int8(zoo / f"{recipe.name}.onnx", aside, _some(recipe, "train", work), method)
    test = examples(recipe, "test", work)
    scores = logits(recipe, recipe, "test", work)
    verdict = accept(scores, onnx_logits(aside, test.inputs), test.positive, min(recipe.fprs))
    _tell_int8(recipe, test, {"method": method, **verdict.as_dict()}, work)
    if not verdict.accepted:
        aside.unlink()
        path.unlink(missing_ok=True)
        return None, verdict
    aside.replace(path)
    return path, verdict


def _some(recipe: MemberRecipe, split: str, work: Workspace) -> dict[str, np.ndarray]:
    """Stamps of a set, as the exported network takes them."""
    return rows_of(examples(recipe, split, work).inputs, slice(CALIBRATION_ROWS))


def fit_blend(recipe: EnsembleRecipe, members: Sequence[MemberRecipe], work: Workspace) -> Blended:
    """Blender, cascade, calibration and thresholds from the calibration set; fitted once, then the
    kept ones for as long as the members, the set and what the recipe asks for stay the same."""
    check_unseen(recipe, members)
    path = work.blend(recipe, _blend_key(recipe, members, work))
    blended = kept(path, len(members))
    if blended is None:
        blended = _fit_blend(recipe, members, work)
        keep(blended, path)
    logger.info("%s: %s, cascade %s", recipe.name, path.name, blended.cascade)
    return blended


def _blend_key(recipe: EnsembleRecipe, members: Sequence[MemberRecipe], work: Workspace) -> str:
    """What a blend depends on, hashed."""
    asked = {"members", "blender", "calibration", "cascade", "fprs"}
    held = set_file(recipe, "calibration", work)
    logits_of = [logits_key(member, held, work) for member in members]
    return digest([recipe.model_dump(mode="json", include=asked), logits_of])


def _fit_blend(recipe: EnsembleRecipe, members: Sequence[MemberRecipe], work: Workspace) -> Blended:
    held = examples(recipe, "calibration", work)
    columns = _columns(recipe, members, "calibration", work)
    blender = blend.fit(recipe.blender.name, recipe.blender.parameters, columns, held.positive)
    scores, cascade, seconds = blenders.blend(columns, blender), None, dict[str, float]()
    if recipe.cascade is not None:
        graphs = {member.name: work.graph(member) for member in members}
        timed = seconds_in_turns(graphs, rows_of(held.inputs, slice(TIMED_ROWS)))
        seconds = {name: float(np.median(turns)) for name, turns in timed.items()}
        cascade = fit_cascade(
            recipe.cascade, recipe.members, columns, scores, held.positive, seconds, recipe.fprs
        )
        scores = cascaded(cascade, recipe.members, columns, scores)
    thresholds = thresholds_of(scores, held.positive, recipe.fprs)
    _check_above(cascade, thresholds)
    calibration = calibrate(recipe.calibration, scores, held.positive)
    return Blended(blender, calibration, thresholds, cascade, seconds)


def _check_above(cascade: Cascade | None, thresholds: Sequence[Threshold]) -> None:
    """InputError where a threshold lies among the rows that the cascade stops."""
    low = [t.fpr for t in thresholds if cascade is not None and t.score <= cascade.floor]
    if low:
        raise InputError(
            "cascade", f"one that asks all members for more than {max(low):g} of non-lenses", "less"
        )


def judge_ensemble(
    recipe: EnsembleRecipe, members: Sequence[MemberRecipe], blended: Blended, work: Workspace
) -> tuple[dict[str, Metric], ScoreDistribution | None]:
    """Figures, a page with the members beside it, and others' scores, from the test set."""
    test = examples(recipe, "test", work)
    columns = _columns(recipe, members, "test", work)
    scores = blended.scores(recipe.members, columns)
    found = evaluate(scores, test, blended.thresholds, blended.calibration)
    graphs = {member.name: work.graph(member) for member in members}
    found["seconds_per_image"] = seconds_per_image(graphs, test.inputs)
    if len(members) > 1:
        fpr = min(recipe.fprs)
        found["diversity"] = diversity(columns, test.positive, recipe.members, fpr)
    if blended.cascade is not None and recipe.cascade is not None:
        stopped = judge_cascade(
            recipe.cascade,
            blended.cascade,
            recipe.members,
            columns,
            blenders.blend(columns, blended.blender),
            test.positive,
            blended.seconds,
        )
        chosen = {**blended.cascade.model_dump(), "seconds": dict(blended.seconds)}
        found["cascade"] = {**stopped.as_dict(), "chosen": chosen}
    reports = {recipe.name: found}
    for k, member in enumerate(members):
        held = logits(member, recipe, "calibration", work)
        positive = examples(recipe, "calibration", work).positive
        thresholds = thresholds_of(held, positive, recipe.fprs)
        reports[member.name] = evaluate(columns[:, k], test, thresholds)
        alone = {member.name: work.graph(member)}
        reports[member.name]["seconds_per_image"] = seconds_per_image(alone, test.inputs)
    write_report(work.report(recipe), test, reports, blended.thresholds)
    return card_metrics(found), scores_of_others(scores, test)


def judge_int8(
    recipe: EnsembleRecipe,
    members: Sequence[MemberRecipe],
    blended: Blended,
    int8: Mapping[str, Path],
    work: Workspace,
) -> Verdict:
    """What the ensemble loses with the members of `int8`, name -> file, in that form."""
    test = examples(recipe, "test", work)
    columns = _columns(recipe, members, "test", work)
    rounded = columns.copy()
    for name, path in int8.items():
        rounded[:, recipe.members.index(name)] = onnx_logits(path, test.inputs)
    scores = [blended.scores(recipe.members, one) for one in (columns, rounded)]
    verdict = accept(scores[0], scores[1], test.positive, min(recipe.fprs))
    methods = {one.name: one.int8.method for one in members if one.name in int8}
    _tell_int8(recipe, test, {"members": methods, **verdict.as_dict()}, work)
    return verdict


def _tell_int8(recipe: Recipe, test: Examples, told: Mapping[str, Any], work: Workspace) -> None:
    judged = {"judged_on": {"name": test.name, "sha256": test.sha256}}
    folder = work.report(recipe)
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / "int8.json", json.dumps({**told, **judged}, indent=1))
    logger.info("%s: int8 %s", recipe.name, told)


def export_ensemble(
    recipe: EnsembleRecipe,
    blended: Blended,
    metrics: Mapping[str, Metric],
    scores: ScoreDistribution | None,
    real: Sequence[str],
    zoo: Path,
    int8: Mapping[str, Path] | None = None,
) -> Path:
    """`zoo/NAME.yaml`, which `lenspipe.models.ensemble` reads; its members lie beside it.

    real: names of real objects that its making saw, see `seen`. int8: member -> its int8 form, in
    the same folder.
    """
    on_cpu = {name: path.name for name, path in (int8 or {}).items()}
    content = {
        "name": recipe.name,
        "description": recipe.description,
        "members": [f"{member}.onnx" for member in recipe.members],
        **({"on_cpu": on_cpu} if on_cpu else {}),
        "blender": blended.blender.model_dump(mode="json"),
        "calibration": blended.calibration.model_dump(mode="json", exclude_defaults=True),
        "thresholds": [t.model_dump(mode="json") for t in blended.thresholds],
        **({"cascade": blended.cascade.model_dump(mode="json")} if blended.cascade else {}),
        "metrics": {name: metric.model_dump(mode="json") for name, metric in metrics.items()},
        **({"score_distribution": scores.model_dump(mode="json")} if scores else {}),
        "seen": list(real),
    }
    path = zoo / f"{recipe.name}.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False, width=100), encoding="utf-8")
    return path


def time_cascade(
    recipe: EnsembleRecipe, choice: CascadeChoice, ensemble: Path, work: Workspace
) -> Path:
    """Time of the cascade over that of all members, on test stamps at the stated prevalence, as
    `cascade.json` beside the evaluation."""
    test = examples(recipe, "test", work)
    draw = np.random.default_rng(0)
    lenses = round(TIMED_ROWS * choice.prevalence)
    groups = ((test.positive, lenses), (~test.positive, TIMED_ROWS - lenses))
    rows = np.concatenate([draw.choice(np.flatnonzero(kind), n) for kind, n in groups])
    images = rows_of(test.inputs, rows)
    names = [spec.name for spec in describe_ensemble(str(ensemble)).inputs]
    if len(names) == len(images) == 1:  # an ensemble may call its one input otherwise
        images = dict(zip(names, images.values(), strict=True))
    found = time_ratio(ensemble, images)
    path = work.report(recipe) / "cascade.json"
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    logger.info("%s: cascade takes %.3f of the time", recipe.name, found["time_ratio_median"])
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
