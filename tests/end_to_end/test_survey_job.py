"""The whole job on toy surveys: files, Ray and ONNX Runtime are real, only the sky is small."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml

from lenspipe.errors import FailureLimitError, InputError, ResumeRefusedError
from lenspipe.run.verify import verify
from lenspipe.run_directory import RunDirectory
from tests.toy_jobs import results, run, run_undisturbed
from tests.toy_models import POISON, expected_logits, make_member, make_weights
from tests.toy_survey import make_survey

pytestmark = pytest.mark.usefixtures("ray_cluster")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, ray_cluster: object) -> Path:
    """A survey that ran once, with nothing in its way."""
    return run_undisturbed(tmp_path_factory.mktemp("undisturbed"))


def test_every_source_leaves_once_and_verify_proves_it(undisturbed: Path) -> None:
    funnel = run(undisturbed)  # all is committed: this publishes again and reads no pixel
    assert funnel.sources_in == 600
    assert funnel.accounted
    assert min(funnel.cut, funnel.rejected, funnel.scored) > 100
    assert verify(RunDirectory(str(undisturbed.parent / "run"))) == []


def test_the_scores_are_those_of_the_bare_arithmetic(undisturbed: Path) -> None:
    """From the catalogue's own columns and pixels, with numpy alone."""
    scores, _ = results(undisturbed)
    catalogue = pq.read_table(undisturbed.parent / "catalogue")
    colour = pc.subtract(catalogue["g_mag"], catalogue["i_mag"])
    keep = pc.and_(pc.less(catalogue["i_mag"], 21.0), pc.greater(colour, 1.0))
    kept = catalogue.filter(keep)
    assert scores["object_id"].to_pylist() == kept["object_id"].to_pylist()
    with h5py.File(undisturbed.parent / "cutouts.h5") as file:
        pixels = file["images"][...][kept["row"].to_numpy()]
    members = [expected_logits(pixels, make_weights((3, 8, 8), seed)) for seed in (0, 1)]
    # float32 sums of 192 terms of order one: their order of summation differs
    np.testing.assert_allclose(scores["score"], np.mean(members, axis=0), atol=2e-6)
    assert scores["ra"].to_pylist() == kept["ra"].to_pylist()


def test_a_resume_that_may_hold_fewer_rows_divides_what_is_not_done(
    undisturbed: Path, tmp_path: Path
) -> None:
    survey = make_survey(
        tmp_path / "divided",
        runtime={"shard_rows": 64, "provider": "cpu", "failure_limit": 1.0},
    )
    run(survey)
    directory = RunDirectory(str(survey.parent / "run"))
    before = {(record.start, record.stop) for record in directory.records("score")}
    for name in list(directory.store.names("shards")):
        if "score" in name:
            directory.store.delete(name)
    content = yaml.safe_load(survey.read_text())
    content["runtime"]["shard_rows"] = 16
    survey.write_text(yaml.safe_dump(content, sort_keys=False))
    run(survey)
    after = [(record.start, record.stop) for record in directory.records("score")]
    assert max(stop - start for start, stop in before) > 16
    assert max(stop - start for start, stop in after) <= 16
    assert verify(directory) == []
    assert results(survey)[0].equals(results(undisturbed)[0])


def test_string_ids_small_row_groups_and_reader_tasks_give_the_same(
    undisturbed: Path, tmp_path: Path
) -> None:
    survey = make_survey(
        tmp_path / "text",
        string_ids=True,
        row_group=7,
        runtime={"shard_rows": 64, "provider": "cpu", "readers": 1, "failure_limit": 1.0},
    )
    run(survey)
    scores, _ = results(survey)
    expected, _ = results(undisturbed)
    numbers = [int(text.split()[1]) for text in scores["object_id"].to_pylist()]
    found = dict(zip(numbers, scores["score"].to_pylist(), strict=True))
    assert [found[k] for k in expected["object_id"].to_pylist()] == expected["score"].to_pylist()


def test_repeated_ids_are_reported_and_scored_once(tmp_path: Path) -> None:
    survey = make_survey(tmp_path / "twice")
    path = survey.parent / "catalogue" / "part.parquet"
    table = pq.read_table(path)
    pq.write_table(pa.concat_tables([table, table.slice(0, 50)]), path)
    funnel = run(survey)
    scores, reasons = results(survey)
    assert funnel.accounted
    assert len(set(scores["object_id"].to_pylist())) == scores.num_rows
    assert funnel.reasons == {"duplicate_id": len(reasons)}
    assert len(reasons) > 5
    assert verify(RunDirectory(str(survey.parent / "run"))) == []


def test_bad_stamps_fail_alone(undisturbed: Path, tmp_path: Path) -> None:
    survey = make_survey(tmp_path / "bad", member={"poison": True})
    wanted = results(undisturbed)[0]["object_id"].to_pylist()
    with h5py.File(survey.parent / "cutouts.h5", "a") as file:
        for object_id, value in zip(wanted[:2], (np.nan, 3.0), strict=True):
            file["images"][object_id - 1000] = value
        file["images"][wanted[2] - 1000, 0, 0, 0] = POISON  # a member raises on it
    run(survey)
    scores, reasons = results(survey)
    assert reasons == {
        wanted[0]: "bad_pixels",
        wanted[1]: "constant_image",
        wanted[2]: "member_error",
    }
    assert scores["object_id"].to_pylist() == wanted[3:]
    assert scores["score"].to_pylist() == results(undisturbed)[0]["score"].to_pylist()[3:]


def test_failures_past_the_limit_end_with_status_3(tmp_path: Path) -> None:
    survey = make_survey(
        tmp_path / "limit", runtime={"shard_rows": 64, "provider": "cpu", "failure_limit": 0.0}
    )
    with h5py.File(survey.parent / "cutouts.h5", "a") as file:
        file["images"][...] = np.nan
    with pytest.raises(
        FailureLimitError, match=r"([0-9]+) of \1 sources failed .*bad_pixels"
    ) as caught:
        run(survey)
    assert caught.value.exit_status == 3


def test_what_a_resume_takes_and_what_it_refuses(tmp_path: Path) -> None:
    survey = make_survey(tmp_path / "changed")
    run(survey)
    folder = survey.parent / "run"
    records = sorted((folder / "shards").iterdir())
    times = [record.stat().st_mtime_ns for record in records]
    content = yaml.safe_load(survey.read_text())

    survey.write_text(yaml.safe_dump({**content, "candidates": {"top": 3}}))
    assert run(survey).candidates == 3  # chosen anew, nothing scored anew
    assert [record.stat().st_mtime_ns for record in records] == times

    survey.write_text(yaml.safe_dump({**content, "cuts": {"bright_enough": "i_mag < 20.0"}}))
    with pytest.raises(ResumeRefusedError, match=r"survey\.cuts\.bright_enough.*21\.0.*20\.0"):
        run(survey)

    survey.write_text(yaml.safe_dump(content))
    make_member(survey.parent / "toy-a.onnx", seed=9)
    with pytest.raises(ResumeRefusedError, match=r"models\.ensemble"):
        run(survey)

    (folder / "run.json").unlink()
    with pytest.raises(ResumeRefusedError, match="commits without it"):
        run(survey)

    before, _ = results(survey)
    run(survey, fresh=True)  # with the other model
    after, _ = results(survey)
    assert after["object_id"] == before["object_id"]
    assert after["score"] != before["score"]


def test_wrong_bands_and_a_wrong_pixel_scale_are_refused(tmp_path: Path) -> None:
    survey = make_survey(tmp_path / "wrong")
    content = yaml.safe_load(survey.read_text())
    for key, value, message in (
        ("bands", ["g", "r", "z"], "i"),
        ("pixel_scale_arcsec", 0.2, "0.25"),
    ):
        changed = {**content, "cutouts": {**content["cutouts"], key: value}}
        survey.write_text(yaml.safe_dump(changed))
        with pytest.raises(InputError, match=message):
            run(survey)
