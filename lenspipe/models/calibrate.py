"""From score to probability, and from one prevalence of lenses to another."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float32, Float64

from lenspipe.errors import InputError
from lenspipe.models.card import Calibration


def check(calibration: Calibration, field: str = "calibration") -> None:
    """InputError where the curve would not rise with the score."""
    if calibration.kind == "platt":
        if not calibration.slope > 0:
            raise InputError(f"{field}.slope", "a number above 0", calibration.slope)
        return
    scores, values = np.asarray(calibration.scores), np.asarray(calibration.probabilities)
    if len(scores) < 2 or len(scores) != len(values):
        raise InputError(
            f"{field}.scores",
            "two or more, as many as probabilities",
            f"{len(scores)} and {len(values)}",
        )
    if not (np.diff(scores) > 0).all():
        raise InputError(f"{field}.scores", "rising numbers", calibration.scores)
    if not (np.diff(values) >= 0).all() or values[0] < 0 or values[-1] > 1:
        raise InputError(
            f"{field}.probabilities", "numbers in 0–1 that never fall", calibration.probabilities
        )


def calibrate(
    scores: Float[np.ndarray, " n"],
    calibration: Calibration | None,
    prevalence: float | None = None,
) -> Float32[np.ndarray, " n"]:
    """Probability per score; NaN stays NaN.

    Platt (1999): p = 1 / (1 + exp(-(slope s + intercept))). Isotonic: linear between the fitted
    steps, constant beyond them. Without a calibration: the logistic function of the score.
    prevalence: fraction of lenses where the scores were made, None for the calibration's own; see
    `to_prevalence`. All in float64, since a float32 near 1 has lost the odds.
    """
    used = calibration or Calibration()
    check(used)
    values = np.asarray(scores, np.float64)
    if used.kind == "isotonic":
        found = np.interp(values, used.scores, used.probabilities)
    else:
        found = logistic(used.slope * values + used.intercept)
    if prevalence is not None:
        found = to_prevalence(found, used.prevalence, prevalence)
    return np.where(np.isnan(values), np.nan, found).astype(np.float32)


def to_prevalence(
    probabilities: Float[np.ndarray, " n"], training_prevalence: float, survey_prevalence: float
) -> Float[np.ndarray, " n"]:
    """Probability where lenses are as frequent as in the survey, by Bayes' rule.

    The odds are multiplied by the ratio of the prior odds (Saerens et al. 2002, Neural Computation
    14, 21, eq. 2.4). Prevalences: fractions in (0, 1). Probabilities of exactly 0 and 1, as the
    ends of an isotonic curve may be, are certain at any prevalence and stay.
    """
    for name, value in (("training", training_prevalence), ("survey", survey_prevalence)):
        if not 0.0 < value < 1.0:
            raise InputError(f"{name}_prevalence", "a fraction between 0 and 1", value)
    given = np.asarray(probabilities, np.float64)
    lens = given * (survey_prevalence / training_prevalence)
    other = (1.0 - given) * ((1.0 - survey_prevalence) / (1.0 - training_prevalence))
    return np.asarray(lens / (lens + other), probabilities.dtype)


def logistic(values: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    """1 / (1 + exp(-x)) without overflow at either end."""
    small = np.exp(-np.abs(values))
    return np.asarray(np.where(values >= 0, 1.0, small) / (1.0 + small))
