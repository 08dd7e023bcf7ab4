"""Is a difference real: seeds, paired bootstrap, correction for many comparisons, ranks with ties.

Methods are compared on the same items, so every comparison is paired: one bootstrap draws items
once for all methods, and the difference of two methods' draws is the paired bootstrap of their
difference.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

RESAMPLES = 10_000
"""Enough for the smallest p-value, 2 / (RESAMPLES + 1), to survive 200 comparisons."""


def enough_resamples(comparisons: int) -> int:
    """Resamples whose smallest p-value, corrected for so many comparisons, is 0.02 or less."""
    return max(RESAMPLES, 100 * comparisons)


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
    with np.errstate(invalid="ignore"):  # an overflown perplexity has no deviation
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
    """Compare two methods by their paired draws [resamples]; `value` is the observed difference."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(first - second, [tail, 1 - tail])
    return Difference(value, float(low), float(high), p_value(first, second))


def p_value(first: np.ndarray, second: np.ndarray) -> float:
    """Two-sided p-value of "no difference" from paired draws [resamples].

    Twice the smaller share of draws at or beyond zero, counting the observation itself once, and
    therefore never zero.
    """
    draws = first - second
    # Equal figures differ by rounding; that must not count as a difference.
    noise = 1e-12 * max(1.0, float(np.abs(first).max()))
    below = np.count_nonzero(draws <= noise)
    above = np.count_nonzero(draws >= -noise)
    return min(1.0, 2 * (min(below, above) + 1) / (len(draws) + 1))


FEWEST_ITEMS = 20
"""With fewer paired items in a stratum a percentile bootstrap finds differences that are not there:
five items of one sign would give p = 0.0002 where the exact sign test gives 0.06."""


def holm(p: Sequence[float]) -> np.ndarray:
    """p-values [n] adjusted by Holm's step-down method, valid under any dependence."""
    values = np.asarray(p, float)
    order = np.argsort(values, kind="stable")
    factors = np.arange(len(values), 0, -1)
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(values[order] * factors))
    return adjusted


def separated(count: int, p: Callable[[int, int], float], level: float = 0.05) -> np.ndarray:
    """Which of `count` methods differ: bool [count, count], symmetric.

    Holm's method corrects over all pairs, not only over those with the best method: the best one
    is chosen by the same figures, and a comparison chosen by looking is one of all it was chosen
    from. `p(a, b)` is the uncorrected p-value of a < b.
    """
    pairs = list(combinations(range(count), 2))
    adjusted = holm([p(*pair) for pair in pairs])
    result = np.zeros((count, count), bool)
    for (first, second), value in zip(pairs, adjusted, strict=True):
        result[first, second] = result[second, first] = value < level
    return result


def ranks(differ: np.ndarray) -> list[int]:
    """Ranks with ties of methods ordered from best to worst, from `separated`'s [count, count].

    The best method leads the first group, which ends before the first method that is separated
    from its leader; that one leads the next group. All of a group share a rank: one more than
    the number of methods in better groups.
    """
    result: list[int] = []
    while len(result) < len(differ):
        leader = len(result)
        below = differ[leader, leader:]
        size = int(below.argmax()) if below.any() else len(below)
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
