"""The interval and the p-value of one difference, from draws or from a known distribution."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np


@dataclass(frozen=True)
class Difference:
    """The difference of two methods."""

    value: float
    low: float
    high: float
    """Bounds of the percentile interval."""


def with_interval(
    value: float, first: np.ndarray, second: np.ndarray, confidence: float = 0.95
) -> Difference:
    """The observed difference with its interval, from two methods' `bootstrap` deviations [R]."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(first - second, [tail, 1 - tail])
    return Difference(value, value + float(low), value + float(high))


def sign_flip_p_value(value: float, first: np.ndarray, second: np.ndarray) -> float:
    """Two-sided p-value of an observed difference from two methods' `sign_flips` [R].

    The share of draws at least as far from zero; the observation itself counts as a draw.
    """
    # Rounding errors between equal figures must not count as a difference.
    noise = 1e-12 * max(1.0, float(np.abs(first).max()))
    beyond = np.count_nonzero(np.abs(first - second) >= abs(value) - noise)
    return (beyond + 1) / (len(first) + 1)


GRID = 5_001
"""Number of quantiles of Student's t over which a test with seeds averages; of pairs of quantiles
if both methods have several seeds."""


def normal_p_value(value: float, deviation: float, seeds: Sequence[tuple[float, int]]) -> float:
    """Two-sided p-value of an observed difference whose null distribution is known.

    Args:
        value: the observed difference.
        deviation: the null's normal standard deviation; see `sign_factor`.
        seeds: (`seed_error`, S) of each of the two methods that has several seeds.
    """
    from scipy.special import ndtr

    errors = np.zeros(1)
    for error, count in seeds:
        points = GRID if len(seeds) == 1 else math.isqrt(GRID)
        errors = np.add.outer(errors, error * _student_points(count - 1, points)).ravel()
    # Rounding errors between equal figures must not count as a difference.
    distance = max(0.0, abs(value) - 1e-12)
    if deviation < 1e-12:
        return float(np.mean(np.abs(errors) >= distance))
    tails = ndtr((errors - distance) / deviation) + ndtr(-(errors + distance) / deviation)
    return min(1.0, float(tails.mean()))


@cache
def _student_points(freedom: int, count: int) -> np.ndarray:
    """Equally likely quantiles of Student's t, used instead of random draws."""
    from scipy.special import stdtrit

    points: np.ndarray = stdtrit(freedom, (np.arange(count) + 0.5) / count)
    return points


@cache
def mcnemar(first_only: int, second_only: int) -> float:
    """McNemar's exact test with mid-p correction, two-sided.

    If two methods do not differ, the items that only one of them has right are split binomially
    with probability 1/2. Mid-p counts half the probability of what was
    observed (Fagerland, Lydersen and Laake 2013, doi:10.1186/1471-2288-13-91).
    """
    count, fewer = first_only + second_only, min(first_only, second_only)
    term = tail = 1  # of 2^count, hence exact
    for successes in range(fewer):
        term = term * (count - successes) // (successes + 1)
        tail += term
    return float((2 * tail - term) / 2**count)
