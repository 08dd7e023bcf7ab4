"""Outcomes of methods on the units that are independent of each other: documents or items."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

ENOUGH = 30.0
"""Fewest documents, or items with a graded metric, for a test: from here on, 5 % tests of long
tailed, skewed and unequal documents reject 3 to 6.5 % (tests/report/statistics/test_coverage.py,
on real text and on simulations). Documents of unequal size count as `Stratum.effective`."""

ENOUGH_ITEMS = 10.0
"""The same for items that are right or wrong, whose differences cannot be skewed by a few."""


@dataclass(frozen=True)
class Stratum:
    """One task: a column per mask and a row per unit; a column's figure is sum / sum(sizes)."""

    totals: np.ndarray
    """[units, M]: the metric of each item times its weight, or a document's summed loss in nats."""
    sizes: np.ndarray
    """[units]: weights for the mean of a metric (ones but for groups whose members count alike),
    tokens for the mean loss per token."""
    unit: str = "items"
    """What a row is: `items` or `documents`."""

    @property
    def figures(self) -> np.ndarray:
        """[M] what was observed."""
        figures: np.ndarray = self.totals.sum(axis=0) / self.sizes.sum()
        return figures

    @property
    def units(self) -> int:
        """How many independent units it has."""
        return len(self.sizes)

    @property
    def effective(self) -> float:
        """Kish's effective number of units: as many of equal size have the same error."""
        return float(self.sizes.sum() ** 2 / (self.sizes**2).sum())

    @property
    def right_or_wrong(self) -> bool:
        """Whether every outcome is 0 or 1, times the weight of its item."""
        if self.unit == "documents":
            return False
        return bool(((self.totals == 0) | (self.totals == self.sizes[:, None])).all())

    def too_few(self) -> str:
        """Why nothing can be tested on it; empty if it has enough units."""
        effective = self.effective
        if effective >= (ENOUGH_ITEMS if self.right_or_wrong else ENOUGH):
            return ""
        few = f"too few {self.unit} to tell: {self.units}"
        largest = float(self.sizes.max() / self.sizes.sum())
        if effective < 0.9 * self.units:
            few += f", which count as {effective:.0f}: the largest has {100 * largest:.0f} % of it"
        return few


def columns_of(stratum: Stratum, columns: Sequence[Sequence[int]]) -> np.ndarray:
    """The mean [units, methods] over each method's columns."""
    return np.column_stack([stratum.totals[:, list(own)].mean(axis=1) for own in columns])


def pairs(count: int) -> Iterator[tuple[int, int]]:
    """Every first < second."""
    return ((first, second) for first in range(count) for second in range(first + 1, count))
