"""What happens in a run reaches the metrics when it should."""

from __future__ import annotations

from lenspipe.metrics import RunMetrics
from lenspipe.run_directory import ShardRecord
from lenspipe.telling.events import Events
from lenspipe.telling.progress import SilentProgress

RECORD = ShardRecord(
    stage="score", start=0, stop=20, rows_in=20, rows_out=20, rows_failed=0, cutouts=20
)


def test_what_was_committed_before_is_served_once_all_of_it_is_known() -> None:
    metrics = RunMetrics("toy")
    events = Events(metrics, SilentProgress())
    events.stage_started("score", 60, 3)
    for _ in range(2):
        events.resumed("score", [RECORD])
        assert b"lenspipe_cutouts_read_total{" not in metrics.text()
    events.stage_resumed("score", 60, 40)
    assert b'lenspipe_cutouts_read_total{stage="score"} 40.0' in metrics.text()
