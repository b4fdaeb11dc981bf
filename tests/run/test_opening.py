"""Taking a run up again: what --retry-failed takes back."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pytest
import yaml

from lenspipe.check import check_survey
from lenspipe.config import load_survey
from lenspipe.contracts import InputSpec
from lenspipe.cutouts import open_reader
from lenspipe.errors import (
    CorruptRunError,
    InputError,
    LenspipeError,
    NoDeviceError,
    ProviderError,
    ResumeRefusedError,
)
from lenspipe.metrics import RunMetrics
from lenspipe.run.opening import check_and_open, tell_provider
from lenspipe.run.shard_record import ShardRecord
from lenspipe.run.status import describe_status
from lenspipe.run_directory import RunDirectory
from lenspipe.stages.planning import make_plan
from lenspipe.stages.selecting import rows_lost
from lenspipe.telling.events import Events
from lenspipe.telling.progress import SilentProgress
from tests.toy_models import make_member
from tests.toy_survey import BANDS, SIZE, make_survey, write_cutouts

INPUTS = (InputSpec("pixels", BANDS, SIZE, 0.25),)


class _Listener(SilentProgress):
    def __init__(self) -> None:
        self.told: list[str] = []

    def message(self, text: str) -> None:
        self.told.append(text)


def _record(start: int, reasons: dict[str, int]) -> ShardRecord:
    failed = sum(reasons.values())
    return ShardRecord(
        stage="select",
        start=start,
        stop=start + 10,
        rows_in=10,
        rows_out=0,
        rows_failed=failed,
        removed={"network": 10 - failed},
        reasons=reasons,
    )


def _open(survey: Path, retry_failed: bool = False) -> list[str]:
    listener = _Listener()
    events = Events(RunMetrics("toy"), listener)
    with check_and_open(load_survey(survey), events, retry_failed=retry_failed):
        pass
    return listener.told


@pytest.fixture
def survey(tmp_path: Path) -> Path:
    """A run of which parts of the catalogue failed: one for good, one for a reason that passes."""
    survey = make_survey(tmp_path, rows=30)
    _open(survey)
    run = RunDirectory(str(tmp_path / "run"))
    run.commit(_record(0, {}), _record(10, {"unreadable": 10}), _record(20, {"bad_metadata": 1}))
    return survey


def _starts(survey: Path) -> list[int]:
    return [r.start for r in RunDirectory(str(survey.parent / "run")).records("select")]


def test_failed_parts_of_the_catalogue_are_taken_up_before_the_plan(survey: Path) -> None:
    _open(survey)
    assert _starts(survey) == [0, 10, 20]
    told = _open(survey, retry_failed=True)
    assert _starts(survey) == [0, 20]
    assert "1 shards taken up again" in told[0]


def test_after_the_plan_they_stay_and_that_is_told(survey: Path) -> None:
    make_plan(RunDirectory(str(survey.parent / "run")), [], 10, 1)
    told = _open(survey, retry_failed=True)
    assert _starts(survey) == [0, 10, 20]
    assert told[0].startswith("10 rows of the catalogue failed in stage select and stay so")


@pytest.mark.parametrize("lost", [True, False])
def test_a_commit_that_cannot_be_read_is_made_again_by_a_retry(survey: Path, lost: bool) -> None:
    run = RunDirectory(str(survey.parent / "run"))
    run.commit(_record(30, {}))
    name = "shards/select-00000000.jsonl"
    if lost:
        run.store.delete(name)
    else:
        run.store.write(name, run.store.read(name).replace(b"10", b"11", 1))
    with pytest.raises(CorruptRunError, match=rf"^{name}: .*lenspipe run --retry-failed"):
        _open(survey)
    told = _open(survey, retry_failed=True)
    assert told[0] == f"{name} was broken or lost: its rows are done again"
    assert _starts(survey) == [30]
    _open(survey)


def test_a_commit_whose_file_is_gone_is_made_again_by_a_retry(survey: Path) -> None:
    run = RunDirectory(str(survey.parent / "run"))
    kept, lost = (
        run.write_part("failures", start, start + 1, pa.table({"detail": ["x"]}))
        for start in (30, 40)
    )
    for start, part in ((30, kept), (40, lost)):
        run.commit(
            _record(start, {"bad_metadata": 1}).model_copy(update={"parts": {"failures": part}})
        )
    run.store.delete(lost.name)
    told = _open(survey, retry_failed=True)
    assert told[0] == f"{lost.name} was lost or damaged: its rows are done again"
    assert _starts(survey) == [0, 20, 30]
    assert run.store.names("failures") == [kept.name]


@pytest.mark.parametrize(
    ("error", "counted"),
    [
        (ProviderError("provider cuda: no CUDA device"), True),
        (NoDeviceError("runtime.provider", "cpu", "cuda"), True),
        (InputError("runtime.scorers", "fewer", 9), False),
    ],
)
def test_a_provider_that_is_not_to_be_had_is_counted_and_ends_the_run(
    tmp_path: Path, error: LenspipeError, counted: bool
) -> None:
    runtime = {"provider": "cuda"}
    survey = load_survey(make_survey(tmp_path, rows=20, runtime=runtime))
    events = Events(RunMetrics("toy"), SilentProgress())
    with pytest.raises(type(error)), check_and_open(survey, events):
        raise error
    text = (tmp_path / "run" / "metrics.prom").read_text("utf-8")
    assert ('lenspipe_provider_refusals_total{provider="cuda"} 1.0' in text) is counted


def test_a_run_tells_of_the_disks_that_it_fills(tmp_path: Path) -> None:
    survey = load_survey(make_survey(tmp_path, rows=20))
    with check_and_open(survey, Events(RunMetrics("toy"), SilentProgress())):
        pass
    text = (tmp_path / "run" / "metrics.prom").read_text("utf-8")
    for place in ("output", "scratch"):
        assert f'lenspipe_disk_free_bytes{{place="{place}"}}' in text


def test_a_resume_on_another_provider_is_told_once(tmp_path: Path) -> None:
    survey = load_survey(make_survey(tmp_path, rows=20))

    def told(provider: str) -> list[str]:
        listener = _Listener()
        with check_and_open(survey, Events(RunMetrics("toy"), listener)) as job:
            tell_provider(job, provider)
            assert (job.run.read_json("run.json") or {})["provider"] == provider
        return [line for line in listener.told if "provider" in line]

    assert told("cpu") == told("cpu") == []
    [line] = told("cuda")
    assert line.startswith("resuming with another provider: cpu before, cuda now")
    assert told("cuda") == []


def test_scores_in_bfloat16_and_in_float32_never_meet_in_one_run(tmp_path: Path) -> None:
    survey = load_survey(make_survey(tmp_path, rows=20))

    def tell(provider: str) -> None:
        with check_and_open(survey, Events(RunMetrics("toy"), SilentProgress())) as job:
            tell_provider(job, provider)

    tell("cpu")
    tell("openvino_bf16")  # nothing is scored yet
    run = RunDirectory(str(tmp_path / "run"))
    part = run.write_part("select", 0, 20, pa.table({"x": list(range(20))}))
    counts = {"rows_in": 20, "rows_out": 20, "rows_failed": 0}
    run.commit(ShardRecord(stage="select", start=0, stop=20, parts={"select": part}, **counts))
    run.commit(_record(0, {"bad_pixels": 10}).model_copy(update={"stage": "score"}))
    for other in ("cpu", "openvino"):
        with pytest.raises(ResumeRefusedError, match=r"runtime\.provider: expected openvino_bf16"):
            tell(other)
    tell("openvino_bf16")


@pytest.mark.parametrize("fresh", [False, True])
def test_files_of_others_are_not_written_over(tmp_path: Path, fresh: bool) -> None:
    survey = make_survey(tmp_path, rows=30)
    mine = tmp_path / "run/catalogue/my.csv"
    mine.parent.mkdir(parents=True)
    mine.write_text("1")
    events = Events(RunMetrics("toy"), _Listener())
    with (
        pytest.raises(InputError, match=r"output: expected .* catalogue/.*found catalogue/my\.csv"),
        check_and_open(load_survey(survey), events, fresh=fresh),
    ):
        pass
    assert mine.read_text() == "1"


def test_cuts_that_differ_in_what_looks_like_a_credential_are_two(tmp_path: Path) -> None:
    survey = make_survey(tmp_path, rows=30)
    text = survey.read_text()
    content = yaml.safe_load(text)
    for letter in "AB":
        content["cuts"] = {"odd": f"""i_mag < 21.0 AND 'u?sig={letter}"' = 'u?sig=A"'"""}
        survey.write_text(yaml.safe_dump(content))
        if letter == "A":
            _open(survey)
    with pytest.raises(ResumeRefusedError, match=r"survey\.cuts\.odd"):
        _open(survey)


@pytest.mark.parametrize("content", ["[]", '"x"', "{}", '{"state": "running"}'])
def test_a_run_file_of_another_form_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(CorruptRunError, match=r"^run\.json"):
        describe_status(str(tmp_path))


def test_scores_of_a_variant_and_of_the_member_never_meet_in_one_run(tmp_path: Path) -> None:
    path = make_survey(tmp_path, rows=20)
    ensemble = tmp_path / "toy.yaml"
    make_member(tmp_path / "other.onnx", name="toy-a-int8", seed=9, bands=BANDS, size=SIZE)
    ensemble.write_text(ensemble.read_text() + "on_cpu: {toy-a: other.onnx}\n")
    survey = load_survey(path)

    def tell(provider: str) -> None:
        with check_and_open(survey, Events(RunMetrics("toy"), SilentProgress())) as job:
            tell_provider(job, provider)

    tell("cuda")
    tell("cpu")  # nothing is scored yet
    run = RunDirectory(str(tmp_path / "run"))
    assert (run.read_json("run.json") or {})["variants"] == ["toy-a-int8"]
    part = run.write_part("select", 0, 20, pa.table({"x": list(range(20))}))
    counts = {"rows_in": 20, "rows_out": 20, "rows_failed": 0}
    run.commit(ShardRecord(stage="select", start=0, stop=20, parts={"select": part}, **counts))
    run.commit(_record(0, {"bad_pixels": 10}).model_copy(update={"stage": "score"}))
    with pytest.raises(ResumeRefusedError, match=r"expected cpu, .*\(toy-a-int8\), or --fresh"):
        tell("cuda")
    tell("cpu")


def _globbed(folder: Path) -> Path:
    """A run that has begun on the HDF5 files `b*.h5`."""
    survey = make_survey(folder, rows=30)
    (folder / "cutouts.h5").rename(folder / "b1.h5")
    survey.write_text(survey.read_text().replace("cutouts.h5", '"*.h5"'))
    _open(survey)
    return survey


@pytest.mark.parametrize("name", ["a.h5", "b0.h5"])
def test_a_file_that_moves_positions_is_no_file_that_only_came(tmp_path: Path, name: str) -> None:
    """`row` counts through the files: each source that is scored now would get another's pixels,
    and those that are scored keep what they had."""
    survey = _globbed(tmp_path)
    before = open_reader(load_survey(survey).cutouts, str(tmp_path))
    sources = pa.table({"row": [0, 7]})
    first = before.read(sources, INPUTS).images["pixels"]
    rng = np.random.default_rng(8)
    write_cutouts(tmp_path / name, 20, rng)
    moved = open_reader(load_survey(survey).cutouts, str(tmp_path))
    assert not np.array_equal(moved.read(sources, INPUTS).images["pixels"], first)
    refusal = r"pixels\.g\.order: expected the 1 files .* or --fresh, found others among 2 \(newest"
    with pytest.raises(ResumeRefusedError, match=refusal):
        _open(survey, retry_failed=True)
    (tmp_path / name).rename(tmp_path / "b2.h5")  # after all others: nothing moves
    with pytest.raises(ResumeRefusedError, match=r"pixels\.g\.\w+: .*--retry-failed"):
        _open(survey)
    _open(survey, retry_failed=True)
    assert _open(survey) != []  # and now it is part of the run


def test_a_file_that_went_moves_positions_too(tmp_path: Path) -> None:
    survey = make_survey(tmp_path, rows=30)
    survey.write_text(survey.read_text().replace("cutouts.h5", '"*.h5"'))
    write_cutouts(tmp_path / "a.h5", 20, np.random.default_rng(8))
    _open(survey)
    (tmp_path / "a.h5").unlink()
    with pytest.raises(ResumeRefusedError, match=r"pixels\.g\.order: expected the 2 files"):
        _open(survey, retry_failed=True)


def test_a_file_that_was_mended_moves_nothing(tmp_path: Path) -> None:
    survey = _globbed(tmp_path)
    write_cutouts(tmp_path / "b1.h5", 30, np.random.default_rng(9))
    _open(survey, retry_failed=True)


def test_where_sources_are_found_by_name_no_order_matters(tmp_path: Path) -> None:
    survey = make_survey(tmp_path, rows=30)
    content = yaml.safe_load(survey.read_text())
    del content["cutouts"]["row"]
    content["cutouts"] |= {"path": "*.h5", "ids": "names"}
    survey.write_text(yaml.safe_dump(content, sort_keys=False))

    def names(path: Path, first: int) -> None:
        with h5py.File(path, "r+") as file:
            file["names"] = np.arange(first, first + len(file["images"]))

    names(tmp_path / "cutouts.h5", 0)
    _open(survey)
    write_cutouts(tmp_path / "a.h5", 20, np.random.default_rng(8))  # before all others
    names(tmp_path / "a.h5", 1000)
    with pytest.raises(ResumeRefusedError, match=r"pixels\.g\.\w+: .*--retry-failed"):
        _open(survey)
    _open(survey, retry_failed=True)
    assert any("resuming" in line for line in _open(survey))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("shards/model-00001.safetensors", "mine"),
        ("plan/plan.json", "{}"),
        ("run.json", '{"experiment": 7}'),
        ("run.json", "[]"),
    ],
)
@pytest.mark.parametrize("fresh", [False, True])
def test_files_that_look_like_a_run_are_none(
    tmp_path: Path, name: str, content: str, fresh: bool
) -> None:
    survey = make_survey(tmp_path, rows=30)
    mine = tmp_path / "run" / name
    mine.parent.mkdir(parents=True)
    mine.write_text(content)
    with pytest.raises(InputError, match=rf"output: expected .*, found {name}"):
        _open_fresh(survey, fresh)
    with pytest.raises(InputError, match=rf"output: expected .*, found {name}"):
        check_survey(load_survey(survey))
    assert mine.read_text() == content


def _open_fresh(survey: Path, fresh: bool) -> None:
    events = Events(RunMetrics("toy"), _Listener())
    with check_and_open(load_survey(survey), events, fresh=fresh):
        pass


def test_a_run_whose_file_is_damaged_may_begin_anew(survey: Path) -> None:
    (survey.parent / "run/run.json").write_text("{")
    with pytest.raises(CorruptRunError, match=r"run\.json: not JSON"):
        _open(survey)
    _open_fresh(survey, fresh=True)
    assert _starts(survey) == []


def test_erasing_leaves_files_of_others_beside_records(survey: Path) -> None:
    mine = survey.parent / "run/shards/notes.txt"
    mine.write_text("1")
    aside = survey.parent / "run/notes/.tmp-mine"
    aside.parent.mkdir()
    aside.write_text("1")
    _open_fresh(survey, fresh=True)
    _open(survey)
    assert (mine.read_text(), aside.read_text()) == ("1", "1")
    assert _starts(survey) == []


def test_lost_failures_of_select_stay_failures_once_there_is_a_plan(tmp_path: Path) -> None:
    survey = make_survey(tmp_path, rows=30)
    _open(survey)
    run = RunDirectory(str(tmp_path / "run"))
    schema = check_survey(load_survey(survey)).select_plan.failure_schema
    record = _record(10, {"unreadable": 4, "bad_metadata": 1})
    part = run.write_part("failures", 10, 20, rows_lost(schema, record, "x"))
    run.commit(_record(0, {}), record.model_copy(update={"parts": {"failures": part}}))
    run.commit(_record(20, {}))
    make_plan(run, [], 10, workers=1)
    run.store.delete(part.name)
    told = _open(survey, retry_failed=True)
    assert any(f"{part.name} was lost: its rows stay failures" in line for line in told)
    assert _starts(survey) == [0, 10, 20]
    [renewed] = [r.parts["failures"] for r in run.records("select") if r.parts]
    rows = run.read_part(renewed.name)
    assert rows["reason"].to_pylist() == ["unreadable"] * 4 + ["bad_metadata"]
    assert rows["object_id"].null_count == 5


def test_a_record_broken_after_the_plan_is_mended_before_failures_are_looked_for(
    survey: Path,
) -> None:
    run = RunDirectory(str(survey.parent / "run"))
    run.commit(_record(30, {}))
    make_plan(run, [], 10, 1)
    name = "shards/select-00000000.jsonl"
    run.store.write(name, run.store.read(name)[:-20])
    with pytest.raises(CorruptRunError, match=rf"^{name}: .*lenspipe run --retry-failed"):
        list(run.commits("select"))
    told = _open(survey, retry_failed=True)
    assert told[0] == f"{name} was broken or lost: its rows are done again"
    assert _starts(survey) == [30]


def _score(start: int) -> ShardRecord:
    return ShardRecord(
        stage="score", start=start, stop=start + 5, rows_in=5, rows_out=5, rows_failed=0
    )


def test_scores_of_a_plan_that_is_lost_are_taken_back_by_a_retry(survey: Path) -> None:
    """The next plan has other rows: those that failed in select and are there again."""
    run = RunDirectory(str(survey.parent / "run"))
    make_plan(run, [], 10, 1)
    run.commit(_score(0), _score(5))
    _open(survey, retry_failed=True)
    assert [r.start for r in run.records("score")] == [0, 5]
    run.store.delete("plan/plan.json")
    told = _open(survey, retry_failed=True)
    assert told[0] == "plan/plan.json was lost: 2 scored shards are scored again"
    again = RunDirectory(run.url)
    assert again.records("score") == []
    again.commit(_score(0))
    assert [r.start for r in RunDirectory(run.url).records("score")] == [0]


@pytest.mark.parametrize("damage", ["truncate", "flip"])
def test_a_part_that_is_not_what_was_written_is_made_again_by_a_retry(
    survey: Path, damage: str
) -> None:
    run = RunDirectory(str(survey.parent / "run"))
    part = run.write_part("select", 30, 40, pa.table({"object_id": list(range(10))}))
    record = _record(30, {}).model_copy(
        update={"rows_out": 10, "removed": {}, "parts": {"select": part}}
    )
    run.commit(record)
    path = run.store.local_path(part.name)
    whole = path.read_bytes()
    flipped = bytes([*whole[:20], whole[20] ^ 1, *whole[21:]])
    path.write_bytes(whole[:-9] if damage == "truncate" else flipped)
    told = _open(survey, retry_failed=True)
    assert f"{part.name} was lost or damaged: its rows are done again" in told
    assert _starts(survey) == [0, 20]


@pytest.mark.parametrize(
    ("holder", "told"),
    [
        ('{"heartbeat": "x", "pid": 1}', "dead: lock.json tells of no process"),
        ('{"heartbeat": "x", "pid": 1, "host": "h"}', "dead: process 1 on h left it"),
        ("[", "dead: lock.json tells of no process"),
    ],
)
def test_a_lock_that_is_damaged_is_told_by_status(survey: Path, holder: str, told: str) -> None:
    run = RunDirectory(str(survey.parent / "run"))
    run.store.write("lock.json", holder.encode())
    assert dict(describe_status(run.url))["state"].startswith(told)


def test_status_names_the_job_that_wrote_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    survey = make_survey(tmp_path, 40)
    config = {"metadata": {"job_submission_id": "lenspipe-toy-1a2b3c4d-2"}}
    with monkeypatch.context() as job:
        job.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps(config))
        _open(survey)
    assert dict(describe_status(str(tmp_path / "run")))["job"] == "lenspipe-toy-1a2b3c4d-2"
    _open(survey)
    assert "job" not in dict(describe_status(str(tmp_path / "run")))


def test_a_run_tells_of_files_that_may_have_been_counted_by_number(tmp_path: Path) -> None:
    survey = make_survey(tmp_path, 40)
    for number in (2, 10):
        write_cutouts(tmp_path / f"part{number}.h5", 20, np.random.default_rng(0))
    content = yaml.safe_load(survey.read_text())
    content["cutouts"]["path"] = "part*.h5"
    survey.write_text(yaml.safe_dump(content))
    told = [line for line in _open(survey) if line.startswith("warning: cutouts.row counts")]
    assert len(told) == 1
    assert f"part10.h5 before {tmp_path}/part2.h5" in told[0]
