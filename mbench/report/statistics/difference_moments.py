"""Moments of an estimated mean difference, from a sample of a task's units."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mbench.run.early.interval import freedom_of, unseen_weight


@dataclass(frozen=True)
class Moments:
    """Of one estimated difference, over items like those of the tasks."""

    mean: float
    variance: float
    doubt: float
    """Square of the variance over its degrees of freedom."""
    third: float
    """Third cumulant."""

    @staticmethod
    def mean_of(parts: Sequence[Moments]) -> Moments:
        """Of the mean over independent tasks."""
        count = len(parts)
        return Moments(
            sum(part.mean for part in parts) / count,
            sum(part.variance for part in parts) / count**2,
            sum(part.doubt for part in parts) / count**4,
            sum(part.third for part in parts) / count**3,
        )

    def plus_seeds(self, methods: Sequence[tuple[float, float, int]]) -> Moments:
        """With the error of means over seeds: of each method the variance between its masks, what
        of it items explain, and its masks."""
        variance, doubt = self.variance, self.doubt
        for between, explained, count in methods:
            if count > 1:
                variance += max(0.0, between - explained) / count
                doubt += (between / count) ** 2 / (count - 1)
        return Moments(self.mean, variance, doubt, self.third)

    @property
    def freedom(self) -> float:
        """Degrees of freedom of the variance (Satterthwaite 1946)."""
        return max(1.0, self.variance**2 / self.doubt) if self.doubt > 0 else math.inf

    @property
    def skewness(self) -> float:
        """Of the estimate."""
        return self.third / self.variance**1.5 if self.variance > 0 else 0.0


def moments_of(
    mean: float,
    outcomes: np.ndarray,
    residuals: np.ndarray,
    total: int,
    most: float | None,
    cluster: np.ndarray | None,
) -> Moments:
    """Of the mean over all of a task's units, as a sample of units like these.

    Args:
        mean: as estimated.
        outcomes: float64 [n], differences on a simple random sample of the units.
        residuals: float64 [n], of them what was not predicted.
        total: units in all.
        most: that one unit can differ by; None where there is no bound.
        cluster: int64 [n], units of one number are alike; None where all are independent.

    One unit in either direction is added to those seen, as in `half_widths`. The variances of both
    parts follow the same outcomes: their errors add up.
    """
    count = len(outcomes)
    unseen = 1 / count - 1 / total
    apart, left = outcomes - outcomes.mean(), residuals - residuals.mean()
    of_items, doubt_items = _spread(apart, most)
    of_rest, doubt_rest = _spread(left, most) if unseen > 0 else (0.0, 0.0)
    if cluster is not None:
        of_items, doubt_items = _clustered(apart, cluster, total, of_items)
    share = count / total
    third = float((left**3).mean()) * (1 - share) * (1 - 2 * share) / count**2
    third += 3 * unseen / total * float((left**2 * apart).mean())
    together = apart if cluster is None else _sums(apart, cluster)
    third += float((together**3).sum()) / count / total**2
    return Moments(
        mean,
        of_rest * unseen + of_items / total,
        (doubt_rest * unseen + doubt_items / total) ** 2,
        third,
    )


def _spread(centred: np.ndarray, most: float | None) -> tuple[float, float]:
    """Variance with the added units, and its own standard error over √2."""
    count = len(centred)
    added = float(np.abs(centred).max()) if most is None else most
    if added == 0 or count < 2:
        return 0.0, 0.0
    weight = unseen_weight(centred, added)
    variance = (float((centred**2).sum()) + 2 * weight * added**2) / (count - 1)
    fourth = (float((centred**4).sum()) + 2 * weight * added**4) / count
    return variance, variance / math.sqrt(freedom_of(variance, fourth, count))


def _clustered(
    centred: np.ndarray, cluster: np.ndarray, total: int, single: float
) -> tuple[float, float]:
    """Variance of a unit's share in sums over clusters, of which some units were drawn.

    Two units of one cluster are drawn with probability n (n - 1) / (N (N - 1)), hence the weight of
    their product (Horvitz and Thompson 1952); never less than without clusters.
    """
    count = len(centred)
    sums = _sums(centred, cluster)
    together = float((sums**2).sum() - (centred**2).sum())
    variance = max(single, single + together / (count - 1) * (total - 1) / count)
    clusters = len(sums)
    spread = float((sums**2).sum()) / max(1, clusters - 1)
    if spread == 0:
        return variance, variance / math.sqrt(max(1, clusters - 1))
    fourth = float((sums**4).sum()) / clusters
    return variance, variance / math.sqrt(freedom_of(spread, fourth, clusters))


def _sums(values: np.ndarray, cluster: np.ndarray) -> np.ndarray:
    _, place = np.unique(cluster, return_inverse=True)
    sums: np.ndarray = np.bincount(place, values)
    return sums
