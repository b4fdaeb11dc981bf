"""Whether a run's commits and scores are of the cuts and the ensemble that run.json names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence

from lenspipe.catalogue.funnel import funnel
from lenspipe.run_directory import RUN, RunDirectory
from lenspipe.storage.external_sort import stream

_SHOWN = 20  # of a run that is wrong throughout


def check_cuts(run: RunDirectory, cuts: Collection[str]) -> Iterator[str]:
    """The commit records count by the names of run.json's cuts; their expressions are in no record.

    A record of rows that all failed before the cuts has no names.
    """
    counted = funnel(run).cuts
    for name in counted:
        if name not in cuts:
            yield f"{RUN}: survey.cuts: expected {name!r}, which commit records have; found none"
    for name in cuts if counted else ():
        if name not in counted:
            yield f"{RUN}: survey.cuts: {name!r} is in no commit record"


def check_ensemble(run: RunDirectory, score_parts: Sequence[str], ensemble: str) -> Iterator[str]:
    """Every scored row has the hash of run.json's ensemble."""
    rows: Counter[str | None] = Counter()
    for table in stream(run, score_parts, ["model_hash"]):
        for each in table["model_hash"].value_counts().to_pylist():
            rows[each["values"]] += each["counts"]
    del rows[ensemble]
    for found, count in rows.most_common(_SHOWN):
        yield f"{RUN}: models.ensemble: {ensemble!r}, but {count} rows of scores/ have {found!r}"
