"""What a commit says of one shard."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Stage = Literal["select", "score"]


class Part(BaseModel):
    """One committed part file."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str
    rows: int
    bytes: int
    sha256: str


class ShardRecord(BaseModel):
    """The commit of one shard. start, stop: its rows of the catalogue in the order of planning
    (select) or of the plan (score). rows_in = rows_out + rows_failed + the sum of `removed`.
    scores: by bin of the ensemble's score distribution (see `models.drift`). node: address of where
    it was done."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    stage: Stage
    start: int
    stop: int
    rows_in: int
    rows_out: int
    rows_failed: int
    removed: dict[str, int] = Field(default_factory=dict)
    reasons: dict[str, int] = Field(default_factory=dict)
    parts: dict[str, Part] = Field(default_factory=dict)
    attempt: int = 1
    seconds: dict[str, float] = Field(default_factory=dict)
    cutouts: int = 0
    batches: int = 0
    halvings: int = 0
    bytes_read: int = 0
    scores: dict[str, int] = Field(default_factory=dict)
    node: str = ""

    @property
    def name(self) -> str:
        """What messages call the shard."""
        return f"{self.stage} rows {self.start} to {self.stop}"

    @property
    def balanced(self) -> bool:
        """Whether every row that went in came out once."""
        return self.rows_in == self.rows_out + self.rows_failed + sum(self.removed.values())
