"""Is a difference real: paired intervals, paired tests, seeds, many comparisons, ranks with ties.

Methods are compared on the same items, so every comparison is paired: items are drawn (for
intervals) or their signs flipped (for tests) once for all methods, and the difference of two
methods' columns belongs to their difference. Seeds are replicates: their spread enters as an
error of its own, by `seed_errors`, and never by treating seeds as more items.

Shapes: R resamples, M columns (a column is one mask), S seeds of one method.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations

import numpy as np

RESAMPLES = 10_000


def enough_resamples(comparisons: int) -> int:
    """Resamples whose smallest p-value, corrected for so many comparisons, is 0.025 or less."""
    return max(RESAMPLES, 40 * comparisons)


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
    """The items of one task; a column's figure is sum(totals) / sum(sizes)."""

    totals: np.ndarray
    """[items, M]: the metric of each item, or its summed loss in nats."""
    sizes: np.ndarray
    """[items]: ones for the mean of a metric, tokens for the mean loss per token."""

    @property
    def figures(self) -> np.ndarray:
        """[M] what was observed."""
        return self.totals.sum(axis=0) / self.sizes.sum()


MANY_ITEMS = 200
"""From here on, sums over items drawn anew or with random signs have the normal distribution with
their exact covariance. Of signs, where few items differ, the p-value is near the mid-p of the
exact one; see `mcnemar`."""

MANY_LOSSES = 30
"""The same for random signs of losses, which differ on every row, in rows of equal size: there the
normal distribution has the heavier tails of the two (checked in
tests/report/statistics/test_stats.py). Of unequal rows so many must remain that a few long ones do
not decide: sum(sizes)^2 / sum(sizes^2)."""


def _many(stratum: Stratum) -> bool:
    """Whether sums with random signs are normal."""
    # Right or wrong, or the difference of two such outcomes.
    metric = (np.abs(stratum.totals) <= 1).all()
    if metric:
        return len(stratum.sizes) >= MANY_ITEMS
    return bool(stratum.sizes.sum() ** 2 >= MANY_LOSSES * (stratum.sizes**2).sum())


def bootstrap(
    strata: Sequence[Stratum], rng: np.random.Generator, resamples: int = RESAMPLES
) -> np.ndarray:
    """Deviations [R, M] of the strata's mean figure from the observed one, items drawn anew.

    Items are drawn with replacement within their stratum, the same for all columns. A bootstrap
    of few items is too narrow, as a normal interval with an estimated variance is; every
    deviation is therefore scaled by sqrt(items / chi-square of items - 1 degrees of freedom),
    which turns the normal distribution of large samples into Student's t.
    """
    result = np.zeros((resamples, strata[0].totals.shape[1]))
    for stratum in strata:
        items = len(stratum.sizes)
        if items < 2:
            return np.full_like(result, math.nan)  # one item says nothing of its error
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
    return rng.standard_normal((resamples, len(factor))) @ factor


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
    """What `sign_flips` draws from where every stratum is large: [K, M], else None.

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


def seed_errors(values: np.ndarray, draws: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Errors [R] of a mean over seeds that come from having only these seeds; 0 for one seed.

    Student's t with S - 1 degrees of freedom times the standard error over seeds. Of the seeds'
    observed variance, the part that sampling of items explains is taken off first, because the
    draws over items have it already.

    Args:
        values: [S] the seeds' observed figures.
        draws: [R, S] their columns of `sign_flips`.
        rng: source of the draws.
    """
    seeds = len(values)
    if seeds == 1:
        return np.zeros(len(draws))
    error = seed_error(values, float(draws.var(axis=1, ddof=1).mean()))
    return rng.standard_t(seeds - 1, len(draws)) * error


def seed_error(values: np.ndarray, of_items: float) -> float:
    """Standard error of a mean over seeds [S] that comes from having only these; 0 for one.

    `of_items` is the part of the seeds' variance that sampling of items explains. Of two seeds
    it is not taken off: their variance is so uncertain that 5 % tests would reject 8 %.
    """
    if len(values) == 1:
        return 0.0
    explained = of_items if len(values) > 2 else 0.0
    return math.sqrt(max(0.0, values.var(ddof=1) - explained) / len(values))


@dataclass(frozen=True)
class Difference:
    """How far one method is from another."""

    value: float
    low: float
    high: float
    """Bounds of the percentile interval."""


def difference(
    value: float, first: np.ndarray, second: np.ndarray, confidence: float = 0.95
) -> Difference:
    """The observed difference with its interval, from two methods' `bootstrap` deviations [R]."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(first - second, [tail, 1 - tail])
    return Difference(value, value + float(low), value + float(high))


def p_value(value: float, first: np.ndarray, second: np.ndarray) -> float:
    """Two-sided p-value of an observed difference from two methods' `sign_flips` [R].

    The share of draws at least as far from zero, the observation itself counted as one of them.
    """
    # Equal figures differ by rounding; that must not count as a difference.
    noise = 1e-12 * max(1.0, float(np.abs(first).max()))
    beyond = np.count_nonzero(np.abs(first - second) >= abs(value) - noise)
    return (beyond + 1) / (len(first) + 1)


GRID = 5_001
"""Points of Student's t that a test with seeds averages over; with two methods of several seeds,
as many pairs of points."""


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
    # Equal figures differ by rounding; that must not count as a difference.
    distance = max(0.0, abs(value) - 1e-12)
    if deviation < 1e-12:
        return float(np.mean(np.abs(errors) >= distance))
    tails = ndtr((errors - distance) / deviation) + ndtr(-(errors + distance) / deviation)
    return min(1.0, float(tails.mean()))


@cache
def _student_points(freedom: int, count: int) -> np.ndarray:
    """Equally likely points of Student's t: no luck of the draw, unlike random ones."""
    from scipy.special import stdtrit

    return stdtrit(freedom, (np.arange(count) + 0.5) / count)


@cache
def mcnemar(first_only: int, second_only: int) -> float:
    """McNemar's exact test with mid-p correction, two-sided.

    Of the items that just one of two methods has right, the share of either is binomial with
    probability 1/2 if the methods do not differ. Mid-p counts half the probability of what was
    observed (Fagerland, Lydersen and Laake 2013, doi:10.1186/1471-2288-13-91).
    """
    count, fewer = first_only + second_only, min(first_only, second_only)
    term = tail = 1  # of 2^count, hence exact
    for successes in range(fewer):
        term = term * (count - successes) // (successes + 1)
        tail += term
    return (2 * tail - term) / 2**count


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


def ranks(differ: np.ndarray) -> list[tuple[int, int]]:
    """The best and the worst rank that each method may have, ordered from best to worst.

    From `separated`'s [M, M]: one more than the number of methods that are better and separated
    from it, and M less the number that are worse and separated. Methods that are not separated
    share at least one rank, unless one between them is separated from both: "not separated" does
    not carry over from pair to pair, so a single number per method would say too much.
    """
    count = len(differ)
    return [
        (1 + int(differ[place, :place].sum()), count - int(differ[place, place + 1 :].sum()))
        for place in range(count)
    ]


def recovered(value: float, random_mean: float, unpruned: float, higher: bool = True) -> float:
    """Share of the gap between the random mean and the unpruned model that a method closes.

    0 is the random mean, 1 the unpruned model. NaN where random pruning is no worse than the
    unpruned model, because there is no gap to close.
    """
    gap = unpruned - random_mean
    if not math.isfinite(gap) or (gap <= 0 if higher else gap >= 0):
        return math.nan
    return (value - random_mean) / gap


def beaten(value: float, seeds: Sequence[float], higher: bool = True) -> int:
    """How many of the seeds' figures are worse than `value`; equal ones are not.

    If the method were one more random mask, each number from 0 to S would be equally likely.
    """
    return sum(seed < value if higher else seed > value for seed in seeds)


def reversing(value: float, seeds: Sequence[float]) -> list[int]:
    """Positions of the seeds that, as the only baseline, would turn the sign of the difference.

    A seed equal to `value` turns it into a tie and does not count.
    """
    over_mean = value - math.fsum(seeds) / len(seeds)
    return [place for place, seed in enumerate(seeds) if (value - seed) * over_mean < 0]
