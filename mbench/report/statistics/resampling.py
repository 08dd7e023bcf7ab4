"""Resampling of items: a bootstrap for intervals, sign flips for tests.

Methods are compared on the same items, so every comparison is paired: items are drawn, or their
signs flipped, once for all methods, and the difference of two methods' columns belongs to their
difference.

Shapes: R resamples, M columns (a column is one mask).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000


def enough_resamples(comparisons: int) -> int:
    """Resamples whose smallest p-value, corrected for so many comparisons, is 0.025 or less."""
    return max(RESAMPLES, 40 * comparisons)


@dataclass(frozen=True)
class Stratum:
    """The items of one task; a column's figure is sum(totals) / sum(sizes)."""

    totals: np.ndarray
    """[items, M]: the metric of each item times its weight, or its summed loss in nats."""
    sizes: np.ndarray
    """[items]: weights for the mean of a metric (ones but for groups whose members count alike),
    tokens for the mean loss per token."""

    @property
    def figures(self) -> np.ndarray:
        """[M] what was observed."""
        figures: np.ndarray = self.totals.sum(axis=0) / self.sizes.sum()
        return figures


MANY_ITEMS = 200
"""From this number on, sums over resampled items or over items with random signs are drawn from
the normal distribution with their exact covariance. With random signs and few items that differ,
the p-value is near the mid-p of the exact test; see `mcnemar`."""

MANY_LOSSES = 30
"""The same for random signs of losses, which differ on every row: there the normal distribution has
the heavier tails (checked in test_resampling.py)."""


def _many(stratum: Stratum) -> bool:
    """Whether sums with random signs are normal.

    Of unequal rows the effective number counts, so that a few large ones do not decide.
    """
    # Right or wrong, or the difference of two such outcomes.
    metric = (np.abs(stratum.totals) <= 1).all()
    many = MANY_ITEMS if metric else MANY_LOSSES
    return bool(stratum.sizes.sum() ** 2 >= many * (stratum.sizes**2).sum())


def bootstrap(
    strata: Sequence[Stratum], rng: np.random.Generator, resamples: int = RESAMPLES
) -> np.ndarray:
    """Bootstrap deviations [R, M] of the strata's mean figure from the observed one.

    Items are drawn with replacement within their stratum, the same for all columns. A bootstrap
    of few items is too narrow, as a normal interval with an estimated variance is; every
    deviation is therefore scaled by sqrt(items / chi-square of items - 1 degrees of freedom),
    which turns the normal distribution of large samples into Student's t.
    """
    result = np.zeros((resamples, strata[0].totals.shape[1]))
    for stratum in strata:
        items = len(stratum.sizes)
        if items < 2:
            return np.full_like(result, math.nan)  # one item has no error estimate
        scale = np.sqrt(items / rng.chisquare(items - 1, resamples))[:, None]
        if items >= MANY_ITEMS:
            # To first order, a ratio deviates by the sum of its items' residuals.
            residuals = stratum.totals - stratum.sizes[:, None] * stratum.figures
            result += _normal(residuals, rng, resamples) * scale / stratum.sizes.sum()
            continue
        for part in _parts(resamples, items):
            rows = part.stop - part.start
            drawn = rng.integers(items, size=(rows, items))
            drawn += np.arange(rows)[:, None] * items
            counts = np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape)
            counts = counts.astype(float)
            figures = counts @ stratum.totals / (counts @ stratum.sizes)[:, None]
            result[part] += (figures - stratum.figures) * scale[part]
    return result / len(strata)


def _normal(rows: np.ndarray, rng: np.random.Generator, resamples: int) -> np.ndarray:
    """Draws [R, M] of the sum over items of independent standard normal multiples of its rows."""
    # A QR factor of [items, M] has the covariance of its rows' sum and fewer rows.
    factor = np.linalg.qr(rows, mode="r")
    draws: np.ndarray = rng.standard_normal((resamples, len(factor))) @ factor
    return draws


def sign_flips(
    strata: Sequence[Stratum], rng: np.random.Generator, resamples: int = RESAMPLES
) -> np.ndarray:
    """Draws [R, M] whose column differences are those of methods that do not differ.

    If two methods do not differ, exchanging their outcomes on any item changes nothing but the
    sign of the item's difference. One random sign per item, the same for all columns, therefore
    gives the null distribution of every pair; for one task with outcomes right or wrong this is
    McNemar's exact test. It holds for any number of items.
    """
    result = np.zeros((resamples, strata[0].totals.shape[1]))
    for stratum in strata:
        items, size = len(stratum.sizes), stratum.sizes.sum()
        if _many(stratum):
            result += _normal(stratum.totals, rng, resamples) / size
            continue
        for part in _parts(resamples, items):
            signs = 2.0 * rng.integers(2, size=(part.stop - part.start, items), dtype=np.int8) - 1
            result[part] += signs @ stratum.totals / size
    return result / len(strata)


def sign_factor(strata: Sequence[Stratum]) -> np.ndarray | None:
    """The distribution that `sign_flips` draws from if every stratum is large: [K, M], else None.

    The difference of two columns is normal under the null, and the norm of the difference of
    their factors is its standard deviation.
    """
    if not all(map(_many, strata)):
        return None
    factors = [np.linalg.qr(s.totals, mode="r") / s.sizes.sum() for s in strata]
    return np.concatenate(factors) / len(strata)


def _parts(resamples: int, items: int) -> Iterable[slice]:
    """Slices of the resamples whose [rows, items] of float64 take 32 MB at most."""
    rows = max(1, 4_000_000 // items)
    for start in range(0, resamples, rows):
        yield slice(start, min(start + rows, resamples))
