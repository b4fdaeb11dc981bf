"""The learning rate along a training, as a fraction of the full one."""

from __future__ import annotations

from typing import Any

import numpy as np

from training.recipe import Schedule


class Rate:
    """The fraction at each step; what a plateau did to it so far is its state."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self._fraction = 1.0
        self._waited = 0

    def at(self, progress: float) -> float:
        """Fraction at `progress` (0 to 1) of the training."""
        if self.schedule.name == "plateau":
            return self._fraction
        return along(self.schedule, progress)

    def epoch_done(self, better: bool) -> None:
        """Count an epoch that was better than all before it, or no better."""
        self._waited = 0 if better else self._waited + 1
        if self._waited >= self.schedule.patience:
            self._fraction = max(self._fraction * self.schedule.factor, self.schedule.floor)
            self._waited = 0

    def state_dict(self) -> dict[str, Any]:
        """What a resumed training needs."""
        return {"fraction": self._fraction, "waited": self._waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self._fraction, self._waited = float(state["fraction"]), int(state["waited"])


def along(schedule: Schedule, progress: float) -> float:
    """Fraction of the full learning rate at `progress` (0 to 1) of a schedule that is planned.

    one_cycle: Smith & Topin 2017, arXiv:1708.07120.
    """
    if schedule.name == "constant":
        return 1.0
    rise = schedule.warmup if schedule.name == "one_cycle" else 0.0
    if progress < rise:
        return 0.04 + 0.96 * progress / rise
    fall = (progress - rise) / (1.0 - rise)
    return float(0.5 * (1.0 + np.cos(np.pi * fall)))
