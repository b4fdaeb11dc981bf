"""What the job is measured against."""

from __future__ import annotations

from pathlib import Path

from lenspipe.bench.job import asking_every_member
from lenspipe.models.ensemble_file import describe_ensemble
from tests.toy_models import make_ensemble


def test_a_cascade_spares_neither_side(tmp_path: Path) -> None:
    given = describe_ensemble("ps1-gri")
    assert given.spec.cascade is not None
    found = describe_ensemble(asking_every_member("ps1-gri", tmp_path))
    assert found.spec.cascade is None
    assert found.member_names == given.member_names
    assert [member.sha256 for member in found.members] == [m.sha256 for m in given.members]
    assert found.spec.blender == given.spec.blender
    assert found.spec.thresholds == given.spec.thresholds


def test_an_ensemble_without_one_is_taken_as_it_is(tmp_path: Path) -> None:
    path = str(make_ensemble(tmp_path / "toy"))
    assert asking_every_member(path, tmp_path) == path
