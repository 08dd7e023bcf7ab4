"""What some of its items tell of a mask's figure over all of them, and whether that is enough."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from mbench.core.early import Ending
from mbench.run.early.adjustment import adjusted
from mbench.run.early.interval import half_widths
from mbench.run.early.population import Population

if TYPE_CHECKING:
    import pandas as pd

ERROR = 0.05
"""Chance that any of a mask's intervals on a task, over all looks, leaves its figure out."""

Interval = tuple[float, float]

Name = TypeVar("Name", bound=Hashable)


@dataclass(frozen=True)
class Verdict:
    """On means of all parts (see `Population`)."""

    mean: float
    own: Interval
    """Of this mask alone, over all looks."""
    among: Interval
    """Of this mask and all that it is compared with at once, over all looks."""
    overall: Interval
    """Of this mask and those on all tasks at once, over all looks."""
    items: int
    """It rests on so many."""

    @property
    def half(self) -> float:
        """Half the width of its own interval."""
        return (self.own[1] - self.own[0]) / 2


def verdict(
    population: Population,
    tables: Sequence[pd.DataFrame],
    predictors: np.ndarray,
    share: float,
    compared: int,
    tasks: int,
) -> Verdict:
    """Estimate from the looks made so far.

    Args:
        population: of the task.
        tables: outcomes of the mask on the items of its looks.
        predictors: float64 [units, p], what is known of all units.
        share: of `ERROR`, that this look may make (see `error_share`).
        compared: masks whose intervals are to hold at once.
        tasks: on which they are to.
    """
    items = sum(len(table) for table in tables)
    parts = [population.parts(table) for table in tables]
    sample = np.concatenate([units for units, _ in parts])
    values = np.concatenate([own for _, own in parts])
    if not np.isfinite(values).all():
        # The figure is not finite, or, without the metric on some item, a mean over nobody knows
        # how many.
        nothing = (-math.inf, math.inf)
        return Verdict(math.nan, nothing, nothing, nothing, items)
    # Which unit is in which fold is fixed by how many there are: a look repeated tells the same.
    rng = np.random.default_rng(len(sample))
    estimate = adjusted(values[:, None], sample, predictors, rng)
    found, residuals = float(estimate.means[0]), estimate.residuals[:, 0]
    most = population.most(sample, values)
    bounds = _certain(population, sample, values)
    mean = min(max(found, bounds[0]), bounds[1])

    def interval(error: float) -> Interval:
        below, above = half_widths(residuals, population.count, error, most)
        return max(found - below, bounds[0]), min(found + above, bounds[1])

    each = ERROR * share
    among = each / max(1, compared)
    return Verdict(mean, interval(each), interval(among), interval(among / max(1, tasks)), items)


def _certain(population: Population, sample: np.ndarray, values: np.ndarray) -> Interval:
    """Between what the mean is if all unseen items are wrong, or all right."""
    if not population.bounded(sample, values):
        return -math.inf, math.inf
    known = float(values.sum())
    unseen = float(population.size.sum() - population.size[sample].sum())
    return known / population.count, (known + unseen) / population.count


def standing(
    intervals: Mapping[Name, Interval],
    *,
    lower_is_better: bool,
    seeds: Mapping[Name, Set[Name]] | None = None,
) -> dict[Name, Ending]:
    """Which of several masks need no more items to be told from the others, or to be out of it.

    Args:
        intervals: that hold at once, by mask; of one without any outcome, everything.
        lower_is_better: of the task's metric.
        seeds: for a mask, all that its method made with other seeds. They are out together or not
            at all: were those left alone that look bad by now, their mean would look so, too.
    """
    if len(intervals) < 2:
        return {}
    sign = -1 if lower_is_better else 1
    ends = {key: sorted((sign * low, sign * high)) for key, (low, high) in intervals.items()}
    best = max(low for low, _ in ends.values())
    found: dict[Name, Ending] = {}
    for key, (low, high) in ends.items():
        others = [end for other, end in ends.items() if other != key]
        if all(high < other[0] or low > other[1] for other in others):
            found[key] = "settled"
        elif high < best:
            found[key] = "hopeless"
    return {
        key: end
        for key, end in found.items()
        if end == "settled" or all(each in found for each in (seeds or {}).get(key, ()))
    }
