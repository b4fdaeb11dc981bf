"""What a plan makes of a sample whose figures are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lenspipe.forecast.describe import describe_plan, scaling_table
from lenspipe.forecast.estimate import DRIVER_S, PLAN_ROW_S, PUBLISH_ROW_S, Wanted, make_forecast
from lenspipe.forecast.figures import Prices
from lenspipe.forecast.sample import Sample
from lenspipe.processes.slots import Machine, Slots
from tests.forecast.toy_sample import PUBLISH, SCORE, SELECT, sample

HOUR_S = 3600.0


def test_stages_of_one_node_are_those_of_the_sample_carried_on() -> None:
    plan = make_forecast("toy", sample(), Wanted(max_nodes=4))
    stages = plan.stages
    assert plan.selected.expected == pytest.approx(100_000)
    assert plan.shards == 100
    assert stages.select_s.expected == pytest.approx(1000 * 2.0 / 2, rel=0.01)
    assert stages.score_s.expected == pytest.approx(100_000 * 0.1 / 2, rel=0.01)
    assert stages.threshold_s == 6.0
    assert stages.plan_s.expected == pytest.approx(0.1 + PLAN_ROW_S * 99_000)
    stamps = 0.01 * 100_000
    expected = 0.75 + 0.5 + 2.0 + 1.0 + 0.01 * stamps + 0.1 * 100 + PUBLISH_ROW_S * 99_000
    assert stages.publish_s == pytest.approx(expected)
    assert plan.start_up.seconds == 4.0 + 5.0 + 1.0 + 3.0
    parts = stages.select_s.expected + stages.score_s.expected + stages.threshold_s
    parts += stages.plan_s.expected + stages.publish_s + plan.start_up.seconds
    assert plan.hours.expected * HOUR_S == pytest.approx(parts)
    assert plan.bytes_read.catalogue == pytest.approx(1_000_000 * 40)
    assert plan.bytes_read.pixels.expected == pytest.approx(100_000 * 5000)


def test_what_first_shards_take_longer_is_waited_for_once_on_any_number_of_nodes() -> None:
    slow = sample(select=replace(SELECT, warm_up_s=3.0), score=replace(SCORE, warm_up_s=7.0))
    for nodes in (1, 10):
        wanted = Wanted(nodes=nodes, max_nodes=1)
        found, plain = (make_forecast("toy", s, wanted).stages for s in (slow, sample()))
        assert found.select_s.expected - plain.select_s.expected == pytest.approx(3.0)
        assert found.score_s.expected - plain.score_s.expected == pytest.approx(7.0)


def test_more_nodes_divide_the_stages_and_nothing_else() -> None:
    one, many = (make_forecast("toy", sample(), Wanted(nodes=n, max_nodes=1)) for n in (1, 10))
    assert many.stages.select_s.expected == pytest.approx(
        one.stages.select_s.expected / 10, rel=0.05
    )
    # 157 shards of 638 rows for 20 scorers, which have up to two at hand each.
    assert one.stages.score_s.expected / 10 <= many.stages.score_s.expected
    assert many.stages.score_s.expected < 1.4 * one.stages.score_s.expected / 10
    assert many.stages.publish_s == one.stages.publish_s
    assert many.node_hours.expected == pytest.approx(10 * many.hours.expected)


def test_the_fewest_nodes_meet_the_deadline_and_one_less_does_not() -> None:
    varied = replace(SCORE, seconds=tuple(np.linspace(5.0, 15.0, 10)))
    measured = sample(score=varied)
    wanted = Wanted(deadline_s=0.5 * HOUR_S)
    plan = make_forecast("toy", measured, wanted)
    assert plan.meets
    assert plan.hours.high is not None
    assert plan.hours.high <= 0.5
    less = make_forecast("toy", measured, replace(wanted, nodes=plan.nodes - 1))
    assert not less.meets
    assert less.hours.high is not None
    assert less.hours.high > 0.5


def highs(measured: Sample, most: int) -> list[float]:
    """Seconds that no more are expected, on 1, 2 … nodes."""
    plans = (make_forecast("toy", measured, Wanted(nodes=n, max_nodes=1)) for n in range(1, most))
    return [(plan.hours.high or 0.0) * HOUR_S for plan in plans]


def test_no_fewer_nodes_meet_any_deadline() -> None:
    """The most is no power of two; at times more nodes are slower, since shards are whole."""
    measured = sample(score=replace(SCORE, seconds=tuple(np.linspace(5.0, 15.0, 10))))
    there = highs(measured, 22)
    for deadline_s in np.array(there) + 0.01:
        wanted = Wanted(deadline_s=float(deadline_s), max_nodes=21)
        plan = make_forecast("toy", measured, wanted)
        fewest = next(n for n, high in enumerate(there, start=1) if high <= deadline_s)
        assert (plan.nodes, plan.meets) == (fewest, True)


def test_the_table_ends_with_the_most_nodes() -> None:
    plan = make_forecast("toy", sample(), Wanted(max_nodes=21))
    assert [row.nodes for row in plan.scaling] == [1, 2, 4, 8, 16, 21]
    plan = make_forecast("toy", sample(), Wanted(max_nodes=8))
    assert [row.nodes for row in plan.scaling] == [1, 2, 4, 8]


def test_nodes_are_found_where_those_of_the_table_are_too_few_or_too_many() -> None:
    """The driver is what more nodes are slower by."""
    quick = replace(SCORE, slot_s=0.02, seconds=(0.02,) * 10)
    measured = sample(score=quick, total_rows=200_000, total_parts=20, shard_rows=10)
    there = highs(measured, 64)
    best = int(np.argmin(there)) + 1
    deadline_s = there[best - 1] + 0.01
    assert best & (best - 1)
    plan = make_forecast("toy", measured, Wanted(deadline_s=deadline_s, max_nodes=64))
    assert plan.meets
    assert plan.nodes == next(n for n, high in enumerate(there, start=1) if high <= deadline_s)


def test_a_deadline_that_no_number_of_nodes_meets_is_said() -> None:
    plan = make_forecast("toy", sample(), Wanted(deadline_s=10.0, max_nodes=8))
    assert plan.nodes == 8
    assert plan.meets is False
    assert ("nodes", "8 do not meet the deadline of 0.00277778 hours") in describe_plan(plan)


def test_cost_is_the_sum_of_what_is_priced() -> None:
    slots = Slots(scorers=4, cpus=1.0, gpus=0.5, readers=0, depth=2, provider="cuda")
    measured = sample(machine=Machine(8.0, 2.0), slots=slots)
    prices = Prices(node_hour=1.5, gpu_hour=2.0, read_tb=1e6)
    plan = make_forecast("toy", measured, Wanted(nodes=3, max_nodes=1, prices=prices))
    gpu_hours = 3 * 2.0 * plan.stages.score_s.expected / HOUR_S
    assert plan.gpu_hours.expected == pytest.approx(gpu_hours)
    read = (1_000_000 * 40 + 100_000 * 5000) / 1e12
    expected = 1.5 * 3 * plan.hours.expected + 2.0 * gpu_hours + 1e6 * read
    assert plan.cost.expected == pytest.approx(expected)
    assert any(name == "GPU-hours" for name, _ in describe_plan(plan))


def test_intervals_follow_the_spread_of_the_sample() -> None:
    even = make_forecast("toy", sample(), Wanted(max_nodes=1))
    assert even.hours.low == pytest.approx(even.hours.expected)
    uneven = sample(part_selected=tuple(range(55, 155, 10)))
    plan = make_forecast("toy", uneven, Wanted(max_nodes=1))
    assert plan.selected.low is not None
    assert plan.selected.high is not None
    # 90% by Student's distribution: of 10 items 1.833 standard errors of the mean.
    error = 1.833 * np.std(range(55, 155, 10), ddof=1) / np.sqrt(10) * 1000
    assert plan.selected.high - plan.selected.low == pytest.approx(2 * error, rel=0.15)
    assert plan.stages.select_s.low == plan.stages.select_s.high


def test_of_seven_parts_no_interval_is_told() -> None:
    few = sample(part_rows=(1000,) * 7, part_selected=tuple(range(97, 104)))
    plan = make_forecast("toy", few, Wanted(max_nodes=1))
    assert plan.selected.low is None
    assert plan.hours.low is None
    assert scaling_table(plan)[1][2] == "not known"
    told = dict(describe_plan(plan))
    assert told["hours"].endswith(" (interval not known)")
    assert told["score"].endswith(" (interval not known)")
    one_more = sample(part_rows=(1000,) * 8, part_selected=tuple(range(97, 105)))
    assert make_forecast("toy", one_more, Wanted(max_nodes=1)).hours.low is not None


def bottleneck(**changes: object) -> str:
    wanted = Wanted(nodes=1, max_nodes=1)
    return make_forecast("toy", sample(**changes), wanted).bottleneck


def test_the_bottleneck_is_what_is_busy_for_most_of_the_time() -> None:
    assert bottleneck() == "CPUs: the networks"
    reads = {"read": 9.5, "infer": 3.0}
    assert bottleneck(score=replace(SCORE, phases=reads)) == "CPUs: reading pixels"
    starved = replace(SCORE, phases=reads, cpu_busy=0.3)
    assert bottleneck(score=starved) == "storage: reading pixels"
    assert bottleneck(total_parts=100_000) == "CPUs: selecting from the catalogue"
    idle = replace(SELECT, cpu_busy=0.2)
    assert bottleneck(total_parts=100_000, select=idle) == "storage: reading the catalogue"
    assert bottleneck(publish=replace(PUBLISH, fixed_s=1e5)).startswith("one node")


def test_the_driver_is_what_is_short_where_shards_are_many_and_quick() -> None:
    phases = {"read": 0.0, "infer": 0.0009}
    quick = replace(SCORE, slot_s=0.001, seconds=(0.001,) * 10, phases=phases)
    measured = sample(score=quick, total_rows=10_000_000, shard_rows=5)
    plan = make_forecast("toy", measured, Wanted(nodes=64, max_nodes=1))
    assert plan.shards == 200_000
    assert plan.bottleneck.startswith("driver")
    assert plan.stages.score_s.expected >= plan.shards * DRIVER_S


def test_a_store_that_gives_no_more_bounds_the_stage() -> None:
    wanted = Wanted(nodes=8, max_nodes=1, storage_bytes_per_s=1e5)
    plan = make_forecast("toy", sample(), wanted)
    assert plan.stages.score_s.expected == pytest.approx(100_000 * 5000 / 1e5)
    assert plan.bottleneck == "storage: the rate that was stated"


def test_where_nothing_was_selected_scoring_is_not_known() -> None:
    none = sample(part_selected=(0,) * 10, score=None, cautions=("no row was selected",))
    plan = make_forecast("toy", none, Wanted(max_nodes=2))
    assert plan.stages.score_s.expected == 0.0
    assert plan.stages.publish_s == 0.0
    assert plan.shards == 0
    assert ("caution", "no row was selected") in describe_plan(plan)


def test_where_nothing_was_selected_something_may_be() -> None:
    """The rule of three: 3 of 10,000 rows, carried on to the other 990,000; and no time of them."""
    none = sample(part_selected=(0,) * 10, score=None)
    plan = make_forecast("toy", none, Wanted(max_nodes=2, prices=Prices(node_hour=1.0)))
    assert plan.selected.low == 0.0
    assert plan.selected.high == pytest.approx(297.0)
    assert plan.hours.high is None
    assert plan.cost.high is None
    assert plan.bytes_read.pixels.high is None
    told = dict(describe_plan(plan))
    assert told["sources"] == "1,000,000, of which selected 0 (0 to 297)"
    assert told["hours"].endswith(" (interval not known)")
    dated = make_forecast("toy", none, Wanted(max_nodes=2, deadline_s=100 * HOUR_S))
    assert ("nodes", "1 may meet the deadline of 100 hours") in describe_plan(dated)


def test_where_all_was_looked_at_and_nothing_selected_nothing_is() -> None:
    select = replace(SELECT, items=10)
    none = sample(
        part_selected=(0,) * 10, score=None, select=select, total_parts=10, total_rows=10_000
    )
    plan = make_forecast("toy", none, Wanted(max_nodes=1))
    assert plan.selected.high == 0.0
    assert plan.hours.high == pytest.approx(plan.hours.expected)


def test_lost_nodes_cost_time() -> None:
    calm, stormy = (
        make_forecast("toy", sample(), Wanted(nodes=4, max_nodes=1, node_failures_per_day=rate))
        for rate in (0.0, 200.0)
    )
    assert stormy.stages.score_s.expected > 1.1 * calm.stages.score_s.expected
