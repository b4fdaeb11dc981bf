"""What part of a run's sources failed, held against `runtime.failure_limit`. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from lenspipe.catalogue.funnel import Funnel
from lenspipe.contracts import Reason


@dataclass(frozen=True)
class FailedShare:
    """`failed` of `sources`: those of either stage that no cut removed and no network rejected.

    Rows that repeat another row's id are in neither number: they are the catalogue's doing.
    """

    failed: int
    sources: int
    reasons: dict[str, int]

    def exceeds(self, limit: float) -> bool:
        """Whether more than `limit` (a fraction) failed."""
        return self.failed > limit * self.sources

    def told(self, limit: float) -> str:
        """The run's last word where too many failed."""
        share = self.failed / max(self.sources, 1)
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in self.reasons.items())
        return (
            f"{self.failed:,} of {self.sources:,} sources failed ({share:.2%}; left out are those "
            f"that were cut or rejected, and repeated ids), more than runtime.failure_limit "
            f"({limit:.2%}) allows; reasons: {reasons}"
        )


def failed_share(counted: Funnel) -> FailedShare:
    """The share of a run's funnel."""
    reasons = {key: n for key, n in counted.reasons.items() if key != Reason.DUPLICATE_ID}
    failed = sum(reasons.values())
    return FailedShare(failed, counted.scored + failed, reasons)
