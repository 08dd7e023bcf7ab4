"""p-values and intervals of differences; see `pairwise` for what they rest on."""

from __future__ import annotations

import numpy as np

from mbench.report.statistics.pairwise import Pairwise
from mbench.report.statistics.student import quantile, upper_tail

NOISE = 1e-12
"""Differences and errors below this come from rounding."""


def p_values(differences: Pairwise) -> np.ndarray:
    """[n, n] two-sided p-values of no difference: the larger of Student's and Hall's."""
    error, centre = np.sqrt(differences.variance), differences.centre
    # A difference without any spread is certain, if it is one.
    certain = np.where(np.abs(centre) > NOISE, np.copysign(np.inf, centre), 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        distance = np.where(error > NOISE, centre / error, certain)
    corrected = _corrected(distance, differences.skewness)
    tails = np.minimum(np.abs(distance), np.abs(corrected))
    # Corrections on different sides of zero agree with no difference.
    tails = np.where(distance * corrected < 0, 0.0, tails)
    p: np.ndarray = 2 * upper_tail(tails, differences.freedom)
    return p


def bounds(differences: Pairwise, level: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
    """[n, n] lower and upper bounds that miss with probability `level` ([n, n] or one for all).

    A bound excludes zero exactly where the p-value is below the level.
    """
    error = np.sqrt(differences.variance)
    distance = quantile(np.asarray(level) / 2, differences.freedom)
    below = np.maximum(distance, _before_correction(distance, differences.skewness))
    above = np.minimum(-distance, _before_correction(-distance, differences.skewness))
    return differences.centre - below * error, differences.centre - above * error


def _corrected(distance: np.ndarray, skewness: np.ndarray) -> np.ndarray:
    """Hall's transformation of a studentised distance, with skewness a of the estimate:
    t + a t^2 / 3 + a^2 t^3 / 27 + a / 6."""
    with np.errstate(invalid="ignore"):
        result: np.ndarray = (
            distance + skewness * distance**2 / 3 + skewness**2 * distance**3 / 27 + skewness / 6
        )
    return np.where(np.isfinite(distance), result, distance)


def _before_correction(value: np.ndarray, skewness: np.ndarray) -> np.ndarray:
    """The inverse of `_corrected`: (cbrt(1 + a (x - a / 6)) - 1) * 3 / a."""
    flat = np.abs(skewness) < 1e-9
    a = np.where(flat, 1.0, skewness)
    inverse: np.ndarray = np.where(flat, value, 3 / a * (np.cbrt(1 + a * (value - a / 6)) - 1))
    return inverse
