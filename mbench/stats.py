"""Is a difference real: seeds, paired bootstrap, correction for many comparisons, ranks with ties.

Methods are compared on the same items, so every comparison is paired: one bootstrap draws items
once for all methods, and the difference of two methods' draws is the paired bootstrap of their
difference.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000
"""Enough for the smallest p-value, 2 / (RESAMPLES + 1), to survive 200 comparisons."""


@dataclass(frozen=True)
class Summary:
    """A figure over seeds."""

    mean: float
    std: float
    """Sample standard deviation (ddof = 1), NaN for one seed."""
    minimum: float
    maximum: float
    count: int


def summarize(values: Iterable[float]) -> Summary:
    """Mean, sample standard deviation and range of one figure over seeds."""
    array = np.fromiter(values, float)
    std = float(array.std(ddof=1)) if len(array) > 1 else math.nan
    return Summary(float(array.mean()), std, float(array.min()), float(array.max()), len(array))


@dataclass(frozen=True)
class Stratum:
    """The items of one task for M methods; a method's figure is sum(totals) / sum(sizes)."""

    totals: np.ndarray
    """[items, M]: the metric of each item, or its summed loss in nats."""
    sizes: np.ndarray
    """[items]: ones for the mean of a metric, tokens for the mean loss per token."""


def resample(
    strata: Sequence[Stratum], rng: np.random.Generator, resamples: int = RESAMPLES
) -> np.ndarray:
    """Bootstrap the unweighted mean over strata of each method's figure; returns [resamples, M].

    Items are drawn with replacement within their stratum, the same for all methods. The columns
    of the result are therefore paired.
    """
    total = np.zeros((resamples, strata[0].totals.shape[1]))
    for stratum in strata:
        items = len(stratum.sizes)
        rows = max(1, 4_000_000 // items)  # bounds the memory of the counts to 32 MB
        for start in range(0, resamples, rows):
            stop = min(start + rows, resamples)
            drawn = rng.integers(items, size=(stop - start, items))
            drawn += np.arange(stop - start)[:, None] * items
            counts = np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape)
            counts = counts.astype(float)
            total[start:stop] += counts @ stratum.totals / (counts @ stratum.sizes)[:, None]
    return total / len(strata)


def over_seeds(draws: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draws [resamples, S] of one method's seeds -> draws [resamples] of its mean over seeds.

    Each draw averages S - 1 seeds drawn with replacement: S - 1 rather than S makes the variance
    over seeds unbiased. A single seed says nothing of others and is passed on as it is.
    """
    resamples, seeds = draws.shape
    if seeds == 1:
        return draws[:, 0]
    drawn = rng.integers(seeds, size=(resamples, seeds - 1))
    return np.take_along_axis(draws, drawn, axis=1).mean(axis=1)


@dataclass(frozen=True)
class Difference:
    """How far one method is from another."""

    value: float
    low: float
    high: float
    """Bounds of the percentile interval."""
    p: float
    """Two-sided p-value of "no difference"."""


def difference(
    value: float, first: np.ndarray, second: np.ndarray, confidence: float = 0.95
) -> Difference:
    """Compare two methods by their paired draws [resamples]; `value` is the observed difference.

    The p-value is twice the smaller share of draws at or beyond zero, counting the observation
    itself once, and therefore never zero.
    """
    draws = first - second
    tail = (1 - confidence) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    # Equal figures differ by rounding; that must not count as a difference.
    noise = 1e-12 * max(1.0, float(np.abs(first).max()))
    below = np.count_nonzero(draws <= noise)
    above = np.count_nonzero(draws >= -noise)
    p = min(1.0, 2 * (min(below, above) + 1) / (len(draws) + 1))
    return Difference(value, float(low), float(high), p)


def holm(p: Sequence[float]) -> np.ndarray:
    """p-values [n] adjusted by Holm's step-down method, valid under any dependence."""
    values = np.asarray(p, float)
    order = np.argsort(values, kind="stable")
    factors = np.arange(len(values), 0, -1)
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(values[order] * factors))
    return adjusted


def ranks(count: int, p: Callable[[int, int], float], level: float = 0.05) -> list[int]:
    """Ranks with ties of `count` methods that are ordered from best to worst.

    The best method leads the first group. Its comparisons with all methods below it are one
    family, corrected by Holm's method. The group ends before the first method that is separated
    from its leader, which then leads the next group. All of a group share a rank: one more than
    the number of methods in better groups. `p(a, b)` is the uncorrected p-value of methods a, b.
    """
    result: list[int] = []
    while len(result) < count:
        leader = len(result)
        separated = holm([p(leader, other) for other in range(leader + 1, count)]) < level
        size = 1 + (int(separated.argmax()) if separated.any() else len(separated))
        result += [leader + 1] * size
    return result


def recovered(value: float, random_mean: float, unpruned: float, higher: bool = True) -> float:
    """Share of the gap between the random mean and the unpruned model that a method closes.

    0 is the random mean, 1 the unpruned model. NaN where random pruning is no worse than the
    unpruned model, because there is no gap to close.
    """
    gap = unpruned - random_mean
    if not math.isfinite(gap) or (gap <= 0 if higher else gap >= 0):
        return math.nan
    return (value - random_mean) / gap
