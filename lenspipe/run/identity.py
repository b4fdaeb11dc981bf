"""What a run is: configuration, models and inputs. A resume with others is refused."""

from __future__ import annotations

import copy
import hashlib
import platform
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import version
from typing import Any

from lenspipe import __version__
from lenspipe.config import CUT_ORDER, parse_survey
from lenspipe.cutouts.files.listing import Listing
from lenspipe.errors import InputError, PixelsChangedError, ResumeRefusedError
from lenspipe.redaction import redact
from lenspipe.run.resume_rules import BEFORE_THE_KEY, KEEP_COLUMNS, rule_for
from lenspipe.run_directory import RUN, RunDirectory
from lenspipe.select.files import CatalogueFile

# What a resume is compared by; times and state in run.json are only told.
IDENTITY_KEYS = ("layout", "survey", "models", "inputs", "pixels", "known_lenses", "versions")
# The form of the run directory: one more with every change that an older lenspipe would misread,
# or that makes this one misread an older run.
LAYOUT = 3
CARRIED = "carried"  # what the tables of stage `select` hold of the survey's catalogue
_LONGEST = 160  # characters of a value in a refusal
_TOLD = ("ray", "onnxruntime", "duckdb", "pyarrow", "astropy", "numpy", "zarr", "h5py", "hats")


def versions() -> dict[str, str]:
    """Versions of lenspipe and of what its results could depend on."""
    told = {"lenspipe": __version__, "python": platform.python_version()}
    for name in _TOLD:
        try:
            told[name] = version(name)
        except ModuleNotFoundError:  # onnxruntime-gpu in place of onnxruntime
            continue
    return told


def fingerprint(files: Iterable[CatalogueFile]) -> str:
    """SHA-256 over the catalogue's files: path, size, time or ETag."""
    digest = hashlib.sha256()
    for file in sorted(files, key=lambda file: file.path):
        digest.update(f"{redact(file.path)}|{file.size_bytes}|{file.fingerprint}\n".encode())
    return digest.hexdigest()


def differences(
    before: Mapping[str, Any], now: Mapping[str, Any], path: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    """(dotted key, value before, value now) wherever two nested mappings differ."""
    for key in sorted({*before, *now}):
        first, second = before.get(key), now.get(key)
        where = f"{path}.{key}" if path else str(key)
        if isinstance(first, Mapping) and isinstance(second, Mapping):
            yield from differences(first, second, where)
        elif first != second:
            yield where, first, second


def check_same_run(
    run: RunDirectory,
    identity: Mapping[str, Any],
    other_pixels: bool = False,
    pixels: Mapping[str, Listing] | None = None,
) -> list[str] | None:
    """Differences that a resume accepts, in words; None where no run was begun here.

    ResumeRefusedError where the run on disk is another one by the rules of `resume_rules.RULES`.
    other_pixels: files of pixels may be others since, for shards that are done again, as long as
    scored sources keep their place in them. pixels: the listing of each band, for a refusal to name
    its newest file.
    """
    before = run.read_json(RUN)
    if before is None:
        if run.is_begun():
            raise ResumeRefusedError(
                f"run {run.url}", f"{RUN} beside the commits, or --fresh", "commits without it"
            )
        return None
    now = {**identity, "layout": LAYOUT, "versions": versions()}
    found = list(differences(_compared(before), _compared(now)))
    held = list(held_columns(before))  # what columns there are to keep, whatever was asked for
    if other_pixels:
        _refuse_moved(run, before, pixels or {})
    refused = [
        (key, held if key == KEEP_COLUMNS else old, new)
        for key, old, new in found
        if not _taken(key, held if key == KEEP_COLUMNS else old, new, other_pixels)
    ]
    if refused:
        raise _refusal(run, refused, pixels or {})
    return [f"{key}: {old!r} before, {new!r} now" for key, old, new in found]


def check_same_pixels(before: Mapping[str, Listing], now: Mapping[str, Listing]) -> None:
    """PixelsChangedError where a band's files are not those that were there before."""
    for band, listing in before.items():
        found = list(listing.differences(now.get(band, Listing())))
        if found:
            more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
            raise PixelsChangedError(
                f"cutouts, band {band}",
                "the pixels that the run began with (nothing is published: --fresh scores anew; "
                "--retry-failed keeps what is scored, which is right where files only came)",
                f"{redact(found[0])}{more}",
            )


def _compared(identity: Mapping[str, Any]) -> dict[str, Any]:
    """What a resume is compared by. The order of the pixels' files is in their SHA-256 too, and
    matters by itself only where that may differ."""
    kept = {key: identity.get(key) for key in IDENTITY_KEYS}
    survey = kept["survey"]
    if isinstance(survey, Mapping):
        kept["survey"] = _with_new_keys(survey)
    bands = {
        band: {key: value for key, value in told.items() if key != "order"}
        for band, told in _bands(identity).items()
    }
    return {**kept, "pixels": {**(kept["pixels"] or {}), **bands} if bands else kept["pixels"]}


def _with_new_keys(survey: Mapping[str, Any]) -> Mapping[str, Any]:
    """The survey of a run with the keys that came since it was begun, which its file did not say:
    at their defaults, or at `BEFORE_THE_KEY`. As it is where it is no survey of today's (a key that
    is known no more), so that this stays a difference."""
    told = copy.deepcopy({key: value for key, value in survey.items() if key != CUT_ORDER})
    for key, value in BEFORE_THE_KEY.items():
        *blocks, name = key.split(".")
        block: Any = told
        for part in blocks:
            block = block.get(part) if isinstance(block, dict) else None
        if isinstance(block, dict):
            block.setdefault(name, value)
    try:
        whole = parse_survey(told, base=".").identity()
    except InputError:
        return survey
    return {**whole, CUT_ORDER: survey.get(CUT_ORDER, whole[CUT_ORDER])}


def held_columns(before: Mapping[str, Any]) -> tuple[str, ...]:
    """Columns of the survey's catalogue that the tables of a run hold, by its run.json."""
    survey = _compared(before)["survey"]
    sources = survey.get("sources") if isinstance(survey, Mapping) else None
    kept = sources.get("keep_columns", []) if isinstance(sources, Mapping) else []
    return tuple(sorted({*before.get(CARRIED, []), *kept}))


def _bands(identity: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """What is told of each band's files."""
    bands = identity.get("pixels")
    found = bands.items() if isinstance(bands, Mapping) else ()
    return {band: told for band, told in found if isinstance(told, Mapping)}


def _refuse_moved(
    run: RunDirectory, before: Mapping[str, Any], pixels: Mapping[str, Listing]
) -> None:
    """ResumeRefusedError where positions count through files, and those of the run on disk are not
    the first ones now: every position after a file that came or went is another object's."""
    for band, told in _bands(before).items():
        order, now = told.get("order"), pixels.get(band)
        if not order or now is None or now.sha256 == told.get("sha256"):
            continue
        if now.names_sha256(order["files"]) != order["sha256"]:
            raise ResumeRefusedError(
                f"run {run.url}: pixels.{band}.order",
                f"the {order['files']} files of the run on disk before any new one, since "
                "cutouts.row counts through them, or --fresh",
                f"others among {now.count}{_newest(f'pixels.{band}.', pixels)}",
            )


def _taken(key: str, old: Any, new: Any, other_pixels: bool) -> bool:
    rule = rule_for(key)
    if rule is None:  # a key that nobody thought of
        return False
    return rule.takes(old, new) or (rule.key == "pixels" and other_pixels)


def _refusal(
    run: RunDirectory, found: list[tuple[str, Any, Any]], pixels: Mapping[str, Listing]
) -> ResumeRefusedError:
    key, old, new = found[0]
    more = f" (and {len(found) - 1} more differences)" if len(found) > 1 else ""
    remedies = {rule.remedy for name, _, _ in found if (rule := rule_for(name))}
    remedy = remedies.pop() if len(remedies) == 1 else "--fresh"
    return ResumeRefusedError(
        f"run {run.url}: {key}",
        f"{_shown(old)} as in the run on disk, or {remedy}",
        f"{_shown(new)}{_newest(key, pixels)}{more}",
    )


def _newest(key: str, pixels: Mapping[str, Listing]) -> str:
    """The newest file of the band that a key of `pixels` is about."""
    listing = next((pixels[band] for band in pixels if key.startswith(f"pixels.{band}.")), None)
    return f" (newest file: {redact(listing.newest)})" if listing and listing.newest else ""


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} …"
