"""Three declared families of comparisons, each corrected for itself.

| family | question | comparisons of m methods |
| --- | --- | --- |
| `random` | does the method work at all? | each against the mean of random pruning |
| `unpruned` | did pruning hurt? | each, and random pruning, against the unpruned model |
| `methods` | which method is best? | all pairs |

Under a limit of bytes (see `equal_bytes`) all pairs are a family `methods`, too.

p-values are adjusted by Holm's method within a family (of one model, budget and score), and the
intervals hold for the whole family at once: each misses with probability 5 % / size (Bonferroni).
Holm's method tells more apart than these; where it does, the interval's bound beside zero is that
of Holm's own step, so that an interval excludes zero exactly where the difference is clear.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mbench.report.statistics.inference import bounds, p_values
from mbench.report.statistics.many_comparisons import holm
from mbench.report.statistics.pairwise import Pairwise

LEVEL = 0.05
"""Family-wise error of each family, and of its intervals together."""

FamilyName = Literal["random", "unpruned", "methods"]


@dataclass(frozen=True)
class Comparison:
    """The difference of two methods, first minus second."""

    value: float
    low: float = math.nan
    high: float = math.nan
    """Bounds of the interval that holds for the whole family at once; NaN where nothing is
    tested."""
    p: float = math.nan
    """Not adjusted; NaN where nothing is tested."""
    adjusted: float = math.nan
    """p-value adjusted by Holm's method for the family."""
    family: FamilyName = "methods"
    size: int = 0
    """Comparisons of its family."""
    problem: str = ""
    """Why nothing is tested; empty if it is."""
    early: bool = False
    """Whether one of the two was evaluated on some items only: then the bounds are those of
    `mbench.report.statistics.early_pairs`, and there is no p-value."""

    @property
    def clear(self) -> bool:
        """Whether the two are told apart: the adjusted p-value is below 5 %, and the interval
        excludes zero; of early figures, whether the interval does."""
        if self.early:
            return self.low > 0 or self.high < 0
        return self.adjusted < LEVEL

    @property
    def turned(self) -> Comparison:
        """Second minus first."""
        return Comparison(
            -self.value, -self.high, -self.low, self.p, self.adjusted, self.family, self.size,
            self.problem, self.early,
        )  # fmt: skip


def compare_family(
    name: FamilyName, differences: Pairwise, pairs: Sequence[tuple[int, int]], problem: str = ""
) -> dict[tuple[int, int], Comparison]:
    """The comparisons of a family, by the places (first, second) of their methods.

    With `problem`, nothing is tested, and every comparison says why.
    """
    of = differences.at(pairs)
    if problem:
        values = of.value.tolist()
        compared = [Comparison(value, family=name, problem=problem) for value in values]
    else:
        compared = adjusted_family(name, of)
    return dict(zip(pairs, compared, strict=True))


def adjusted_family(
    name: FamilyName, of: Pairwise, shares: np.ndarray | None = None
) -> list[Comparison]:
    """A family's comparisons from their differences [n], adjusted for each other.

    `shares` [n]: the part of its error that each may make here, where other looks have the rest.
    """
    size = len(of.value)
    shares = np.ones(size) if shares is None else shares
    p = np.minimum(1.0, p_values(of) / shares)
    adjusted = holm(p)
    low, high = bounds(of, shares * LEVEL / max(1, size))
    # Zero is outside at the level of Holm's step.
    step_low, step_high = bounds(of, shares * holm_levels(p))
    clear = adjusted < LEVEL
    low = np.where(clear & (of.centre > 0) & (low <= 0), step_low, low)
    high = np.where(clear & (of.centre < 0) & (high >= 0), step_high, high)
    figures = zip(*(each.tolist() for each in (of.value, low, high, p, adjusted)), strict=True)
    return [
        Comparison(value, low, high, p, adjusted, name, size)
        for value, low, high, p, adjusted in figures
    ]


def holm_levels(p: np.ndarray) -> np.ndarray:
    """[n] the level at which Holm's method tests each: 5 % / (n less how many come before)."""
    order = np.argsort(p, kind="stable")
    levels = np.empty(len(p))
    levels[order] = LEVEL / np.arange(len(p), 0, -1)
    return levels
