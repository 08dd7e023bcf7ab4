"""Every difference of two methods on the same units, with its error.

Methods are compared on the same items or documents, so every difference is that of paired
outcomes. Documents have unequal sizes, long tails and skew, for which a plain t test rejects up to
15 % at 5 %; three corrections make it hold (measured in tests/report/statistics/test_coverage.py):

- residuals are divided by 1 - h, h the document's share of all tokens (the jackknife's variance,
  "CR3" of MacKinnon and White 1985);
- degrees of freedom are those of the variance's own error: few large documents, and few with large
  residuals, count as few (Satterthwaite 1946, with the sample's fourth moment);
- the interval is the wider, at each end, of Student's and of the one corrected for skew by Hall's
  cubic transformation (Hall 1992, JRSS B 54, 221-228).

Differences of right and wrong answers are -1, 0 or 1: one item won and one lost are added, which
makes the normal interval hold with few disagreements too (Bonett and Price 2012,
doi:10.3102/1076998611411915).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mbench.report.statistics.strata import Stratum, columns_of


@dataclass(frozen=True)
class Pairwise:
    """Differences first - second of every two of n methods; each array is [n, n], or has the shape
    of those that were chosen with `at`."""

    value: np.ndarray
    """What was observed."""
    centre: np.ndarray
    """What the interval is around: `value`, drawn a little to zero by the added items."""
    variance: np.ndarray
    freedom: np.ndarray
    """Degrees of freedom of `variance`."""
    skewness: np.ndarray
    """Of the estimate: its third cumulant over variance ** 1.5."""

    def at(self, pairs: Sequence[tuple[int, int]]) -> Pairwise:
        """The differences [pairs] of these places."""
        first, second = (np.array([pair[side] for pair in pairs], int) for side in (0, 1))
        return Pairwise(*(array[first, second] for array in vars(self).values()))

    @staticmethod
    def joined(parts: Sequence[Pairwise]) -> Pairwise:
        """Differences that were computed apart, [n] each, one after another."""
        arrays = zip(*(vars(part).values() for part in parts), strict=True)
        return Pairwise(*(np.concatenate(own) for own in arrays))


def pairwise(strata: Sequence[Stratum], columns: Sequence[Sequence[int]]) -> Pairwise:
    """All differences of methods in the mean over `strata`; `columns` are each method's masks.

    A method's figure is the mean over its masks. Several masks are a sample of all that its seeds
    could give: the variance between them, less what the items explain of it, is an error of the
    mean (not subtracted for two masks, whose variance is too uncertain).
    """
    of_strata = [
        _of_stratum(s, columns_of(s, columns), right_or_wrong=s.right_or_wrong) for s in strata
    ]
    count = len(strata)
    variance = sum(each.variance for each in of_strata) / count**2
    third = sum(each.skewness * each.variance**1.5 for each in of_strata) / count**3
    # Satterthwaite: the variance of each part's variance is proportional to its square / freedom.
    doubt = sum(each.variance**2 / each.freedom for each in of_strata) / count**4
    seeds, seeds_doubt = _seed_variances(strata, columns)
    variance = variance + seeds[:, None] + seeds[None]
    doubt = doubt + seeds_doubt[:, None] + seeds_doubt[None]
    with np.errstate(divide="ignore", invalid="ignore"):
        freedom = np.where(doubt > 0, variance**2 / doubt, np.inf)
        skewness = np.where(variance > 0, third / variance**1.5, 0.0)
    return Pairwise(
        value=np.mean([each.value for each in of_strata], axis=0),
        centre=np.mean([each.centre for each in of_strata], axis=0),
        variance=variance,
        freedom=np.maximum(freedom, 1.0),
        skewness=skewness,
    )


def _of_stratum(stratum: Stratum, outcomes: np.ndarray, *, right_or_wrong: bool) -> Pairwise:
    figures = outcomes.sum(axis=0) / stratum.sizes.sum()
    value = figures[:, None] - figures[None]
    if right_or_wrong:
        return _of_answers(stratum.sizes, outcomes, value)
    return _of_amounts(stratum.sizes, outcomes, value)


def _of_answers(sizes: np.ndarray, outcomes: np.ndarray, value: np.ndarray) -> Pairwise:
    """With an item won and one lost added to every pair, of mean weight."""
    count, total, weight = len(sizes), sizes.sum(), sizes.mean()
    grown = total + 2 * weight
    centre = value * total / grown
    # sum((x - y - s c)^2) from sums of products: pairs need no table of their own.
    gram = outcomes.T @ outcomes
    squares = np.diag(gram)[:, None] + np.diag(gram)[None] - 2 * gram
    cross = outcomes.T @ sizes
    spread = squares - 2 * centre * (cross[:, None] - cross[None]) + centre**2 * (sizes**2).sum()
    variance = (spread + 2 * weight**2 * (1 + centre**2)) / grown**2
    freedom = np.full_like(value, max(1, count - 1))
    return Pairwise(value, centre, variance, freedom, np.zeros_like(value))


def _of_amounts(sizes: np.ndarray, outcomes: np.ndarray, value: np.ndarray) -> Pairwise:
    """By linearisation of sum / sum(sizes) over documents, or items with a graded metric."""
    count, total = len(sizes), sizes.sum()
    share = sizes / total
    variance, freedom, skewness = (np.zeros_like(value) for _ in range(3))
    freedom[:] = 1.0
    if count < 2:
        return Pairwise(value, value, np.full_like(value, np.nan), freedom, skewness)
    most = max(1.0, 1 / (share**2).sum() - 1)
    for first in range(len(value) - 1):
        rest = slice(first + 1, None)
        differences = outcomes[:, [first]] - outcomes[:, rest]
        residuals = (differences - sizes[:, None] * value[first, rest]) / (1 - share)[:, None]
        squares = residuals * residuals
        second, fourth = squares.sum(axis=0), (squares * squares).sum(axis=0)
        third = (squares * residuals).sum(axis=0)
        variance[first, rest] = (count - 1) / count * second / total**2
        with np.errstate(divide="ignore", invalid="ignore"):
            own = 2 * second**2 / (fourth - second**2 / count)
            tilt = third / second**1.5
        freedom[first, rest] = np.clip(np.nan_to_num(own, nan=most), 1.0, most)
        skewness[first, rest] = np.nan_to_num(tilt)
    below = np.tril_indices(len(value), -1)
    variance[below], freedom[below] = variance.T[below], freedom.T[below]
    skewness[below] = -skewness.T[below]
    return Pairwise(value, value, variance, freedom, skewness)


def _seed_variances(
    strata: Sequence[Stratum], columns: Sequence[Sequence[int]]
) -> tuple[np.ndarray, np.ndarray]:
    """[n] each: variance of a method's mean due to few seeds, and its square over the freedom."""
    variances, doubts = np.zeros(len(columns)), np.zeros(len(columns))
    for place, own in enumerate(columns):
        seeds = len(own)
        if seeds < 2:
            continue
        figures = np.mean([stratum.figures[list(own)] for stratum in strata], axis=0)
        between = float(figures.var(ddof=1))
        explained = 0.0
        if seeds > 2:
            single = [[column] for column in own]
            each = [_item_variance(s, columns_of(s, single)) for s in strata]
            of_items = np.sum(each, axis=0)
            pairs_of_seeds = ~np.eye(seeds, dtype=bool)
            explained = float(of_items[pairs_of_seeds].mean()) / len(strata) ** 2 / 2
        variances[place] = max(0.0, between - explained) / seeds
        doubts[place] = (between / seeds) ** 2 / (seeds - 1)
    return variances, doubts


def _item_variance(stratum: Stratum, outcomes: np.ndarray) -> np.ndarray:
    """[n, n] variance of each difference over units, without added items."""
    count, total = len(stratum.sizes), stratum.sizes.sum()
    residuals = outcomes - stratum.sizes[:, None] * (outcomes.sum(axis=0) / total)
    gram = residuals.T @ residuals
    spread = np.diag(gram)[:, None] + np.diag(gram)[None] - 2 * gram
    variance: np.ndarray = count / max(1, count - 1) * spread / total**2
    return variance
