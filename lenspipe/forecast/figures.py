"""The figures of a plan, as `lenspipe plan --json` prints them."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from lenspipe.forecast.spread import Interval


class _Figures(BaseModel):
    model_config = ConfigDict(frozen=True)


class Prices(_Figures):
    """In any one currency. node_hour: of a node without its GPUs. read_tb: per 10¹² bytes read."""

    node_hour: Annotated[float, Field(ge=0.0)] = 0.0
    gpu_hour: Annotated[float, Field(ge=0.0)] = 0.0
    read_tb: Annotated[float, Field(ge=0.0)] = 0.0


class Node(_Figures):
    """The machine that was measured: every node of the plan is taken to be like it."""

    cpus: float
    gpus: float
    scorers: int
    provider: str


class Sampled(_Figures):
    """What was done for the measurement. seconds: what it took."""

    parts: int
    rows: int
    selected: int
    shards: int
    scored: int
    seconds: float


class StartUp(_Figures):
    """Seconds before rows move: opening and checking the survey, starting Ray, and the workers of
    each stage opening their models."""

    check_s: float
    ray_s: float
    select_s: float
    score_s: float

    @property
    def seconds(self) -> float:
        """All of it."""
        return self.check_s + self.ray_s + self.select_s + self.score_s


class Stages(_Figures):
    """Seconds of each stage on `Plan.nodes` nodes, start-up left out. threshold, plan and publish
    are the driver's alone, and as long on any number of nodes."""

    threshold_s: float
    select_s: Interval
    plan_s: Interval
    score_s: Interval
    publish_s: float


class Scaling(_Figures):
    """One number of nodes. efficiency: share of the scorers' time that goes into shards.
    driver_use: share of the stage in which the driver is busy."""

    nodes: int
    hours: Interval
    efficiency: float
    driver_use: float


class Bytes(_Figures):
    """Bytes read. catalogue: an upper bound, the columns in use whole."""

    catalogue: float
    pixels: Interval

    @property
    def expected(self) -> float:
        """Both."""
        return self.catalogue + self.pixels.expected


class Plan(_Figures):
    """What a survey will take on `nodes` nodes.

    nodes: as asked for, or the fewest that meet the deadline with the upper end of the interval
    (with what is expected, where there is none); None in `meets` where there was no deadline.
    cost: in the currency of the prices. use: share of its time in which each resource is busy in
    the stage that takes longest; bottleneck: the first.
    """

    survey: str
    node: Node
    sample: Sampled
    rows: int
    parts: int
    selected: Interval
    shards: int
    bytes_read: Bytes
    start_up: StartUp
    stages: Stages
    nodes: int
    deadline_hours: float | None
    meets: bool | None
    hours: Interval
    node_hours: Interval
    gpu_hours: Interval
    cost: Interval
    prices: Prices
    use: dict[str, float]
    bottleneck: str
    scaling: tuple[Scaling, ...]
    cautions: tuple[str, ...]
