from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from lenspipe.errors import InputError
from lenspipe.run_directory import GRADES
from lenspipe.serve.grades.event import NewEvent
from lenspipe.serve.grades.labels import Choice, write_labels
from lenspipe.serve.grades.scheme import DEFAULT
from lenspipe.serve.grades.store import Hidden, open_store
from lenspipe.serve.stamps import Stamps
from lenspipe.serve.training_images import TrainingImages
from tests.serve.grades.graded_run import SPEC, make_run
from training.data import load_images


def test_training_takes_the_labels(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    out = tmp_path / "labels.h5"
    with open_store(tmp_path / GRADES) as store:
        given = {0: "AAB", 1: "BBX", 2: "CX", 3: "XXX", 4: "AX", 6: "X", 7: "A", 99: "A"}
        for each, votes in given.items():
            for who, grade in enumerate(votes):
                store.append(NewEvent(f"{each}", f"g{who}", "grade", each, grade))
        # A known lens among the candidates: its truth counts, whatever was said of it.
        store.add_hidden([Hidden(6, True, "known_lens"), Hidden("sim-1", True)])
        done = write_labels(run, store, out, Choice.of(DEFAULT))
        assert (done.lenses, done.others, done.without_stamp) == (3, 3, 1)
        found = load_images(out)
        assert found.labels.tolist() == [1, 1, 0, 0, 0, 1]
        assert found.kinds.tolist() == ["lens", "lens", "graded_X", "graded_X", "graded_X", "lens"]
        assert found.inputs["image"][:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4, 6]
        assert dict(found.specs) == {"image": SPEC}
        with h5py.File(out) as file:
            assert file["object_id"][:].tolist() == [0, 1, 2, 3, 4, 6]
        like = Stamps(run).image(1)
        shown = TrainingImages(out, like)
        assert [each.is_lens for each in shown.hidden] == [True, True, False, False, False, True]
        np.testing.assert_allclose(shown.image(shown.hidden[3].object_id).pixels, 3.0)
        sure = Choice.of(DEFAULT, lens=["A"], other=["X"], votes=3)
        assert write_labels(run, store, out, sure).lenses == 2
        assert load_images(out).inputs["image"][:, 0, 0, 0].tolist() == [0, 3, 6]


def test_text_ids_and_wrong_choices(tmp_path: Path) -> None:
    run = make_run(tmp_path, text_ids=True)
    with open_store(tmp_path / GRADES) as store:
        with pytest.raises(InputError, match="expected graded candidates with stamps, found none"):
            write_labels(run, store, tmp_path / "a.h5", Choice.of(DEFAULT))
        store.append(NewEvent("1", "ana", "grade", "J1", "A"))
        write_labels(run, store, tmp_path / "a.h5", Choice.of(DEFAULT))
        with pytest.raises(InputError, match=r"^OUT: expected a name that ends in .h5"):
            write_labels(run, store, tmp_path / "a.csv", Choice.of(DEFAULT))
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["object_id"].asstr()[:].tolist() == ["J1"]
        assert np.asarray(file["images"]).dtype == np.float32
    with pytest.raises(InputError, match=r"^--lens: expected one of A, B, C, X"):
        Choice.of(DEFAULT, lens=["Q"])
    with pytest.raises(InputError, match=r"^--other: expected grades that are not lenses"):
        Choice.of(DEFAULT, lens=["A"], other=["A", "X"])
