"""How much of the gap from random pruning to the unpruned model a method closes."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mbench.report.statistics.pairwise import Pairwise
from mbench.report.statistics.student import quantile


@dataclass(frozen=True)
class GapClosed:
    """A share of the gap; 0 is the mean of random pruning, 1 the unpruned model."""

    value: float
    low: float
    high: float
    """Bounds of its own 95 % interval, by Fieller's theorem."""


def gap_closed(differences: Pairwise, method: int, random: int, unpruned: int) -> GapClosed | None:
    """The share that the method at a place of `differences` closes.

    The bounds are the shares g for which (method - random) - g (unpruned - random) is not
    significantly different from zero (Fieller 1954). None where that set is unbounded, because the
    gap itself may be none.
    """
    gain, gap = differences.centre[method, random], differences.centre[unpruned, random]
    of_gain = differences.variance[method, random]
    of_gap = differences.variance[unpruned, random]
    # (method - random) - (unpruned - random) is method - unpruned, whose variance is known too.
    common = (of_gain + of_gap - differences.variance[method, unpruned]) / 2
    freedom = min(differences.freedom[method, random], differences.freedom[unpruned, random])
    square = float(quantile(0.025, freedom)) ** 2
    a, b, c = gap**2 - square * of_gap, gain * gap - square * common, gain**2 - square * of_gain
    if a <= 0 or b**2 < a * c:
        return None
    root = math.sqrt(b**2 - a * c)
    value = differences.value[method, random] / differences.value[unpruned, random]
    return GapClosed(float(value), float((b - root) / a), float((b + root) / a))
