"""Many comparisons at once: adjusted p-values, and the ranks they leave open."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations

import numpy as np


def holm(p: Sequence[float]) -> np.ndarray:
    """p-values [n] adjusted by Holm's step-down method, valid under any dependence."""
    values = np.asarray(p, float)
    order = np.argsort(values, kind="stable")
    factors = np.arange(len(values), 0, -1)
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(values[order] * factors))
    return adjusted


def significantly_different(
    count: int, p: Callable[[int, int], float], level: float = 0.05
) -> np.ndarray:
    """Which of `count` methods differ: bool [count, count], symmetric.

    Holm's method adjusts for all pairs, not only for those with the best method: which method is
    best is decided by the same figures, so that every pair was a candidate. `p(a, b)` is the
    unadjusted p-value of a < b.
    """
    pairs = list(combinations(range(count), 2))
    adjusted = holm([p(*pair) for pair in pairs])
    result = np.zeros((count, count), bool)
    for (first, second), value in zip(pairs, adjusted, strict=True):
        result[first, second] = result[second, first] = value < level
    return result


def ranks(differ: np.ndarray) -> list[tuple[int, int]]:
    """The best and the worst rank that each method may have, ordered from best to worst.

    From the [M, M] of `significantly_different`: one more than the number of methods that are
    better and significantly different from it, and M less the number that are worse and
    significantly different. Two methods that are not share at least one rank, unless a method
    between them differs from both: "not significantly different" does not carry over from pair to
    pair, so a single number per method would say too much.
    """
    count = len(differ)
    return [
        (1 + int(differ[place, :place].sum()), count - int(differ[place, place + 1 :].sum()))
        for place in range(count)
    ]
