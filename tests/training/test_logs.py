"""What a training leaves to look at."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import pytest
from tensorboardX.proto.event_pb2 import Event

from training import bars
from training.logs import Logs, read_log


def events(folder: Path) -> list[Event]:
    """Every event of a folder, by the format of TFRecord: length, its checksum, bytes, theirs."""
    found = []
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        while content:
            (length,) = struct.unpack("<Q", content[:8])
            found.append(Event.FromString(content[12 : 12 + length]))
            content = content[16 + length :]
    return found


def scalars(folder: Path) -> list[tuple[int, str, float]]:
    return [
        (event.step, value.tag, value.simple_value)
        for event in events(folder)
        for value in event.summary.value
    ]


def test_tensorboard_reads_what_was_written(tmp_path: Path) -> None:
    logs = Logs(tmp_path, 0)
    logs.epoch({"epoch": 1, "train_loss": 0.5, "auroc": 0.75, "learning_rate": 0.25})
    logs.close()
    assert scalars(tmp_path / "events") == [
        (1, "loss/train_loss", 0.5),
        (1, "validation/auroc", 0.75),
        (1, "training/learning_rate", 0.25),
    ]


def test_a_resumed_training_purges_what_it_does_again(tmp_path: Path) -> None:
    for done in (0, 1):
        logs = Logs(tmp_path, done)
        for epoch in range(done + 1, 4):
            logs.epoch({"epoch": epoch, "train_loss": float(epoch + done)})
        logs.close()
    assert [row["train_loss"] for row in read_log(tmp_path / "log.csv")] == ["1.0", "3.0", "4.0"]
    starts = [e.step for e in events(tmp_path / "events") if e.session_log.status == 1]
    assert 2 in starts  # TensorBoard drops what older files say from this step on


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("stream", "leads"), [(io.StringIO(), True), (Terminal(), False)])
def test_bars_are_for_terminals_and_for_one_process(stream: io.StringIO, leads: bool) -> None:
    with bars.shown("toy", 2, 0, 3, leads, stream) as shown:
        shown.begin_epoch()
        shown.step()
        shown.end_epoch("auroc 0.5")
    assert stream.getvalue().strip() == ""


def test_bars_tell_the_epoch_and_its_figure() -> None:
    stream = Terminal()
    with bars.shown("toy", 2, 1, 3, stream=stream) as shown:
        shown.begin_epoch()
        shown.step()
        shown.end_epoch("auroc 0.5")
    told = stream.getvalue()
    assert "toy epochs" in told
    assert "2/2" in told
    assert "auroc 0.5" in told
