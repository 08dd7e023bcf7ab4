"""Many comparisons at once: adjusted p-values, and the ranks they leave open."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def holm(p: Sequence[float] | np.ndarray) -> np.ndarray:
    """p-values [n] adjusted by Holm's step-down method, valid under any dependence."""
    values = np.asarray(p, float)
    order = np.argsort(values, kind="stable")
    factors = np.arange(len(values), 0, -1)
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(values[order] * factors))
    return adjusted


def ranks(clear: np.ndarray) -> list[tuple[int, int]]:
    """The best and the worst rank that each method may have, ordered from best to worst.

    From bool [M, M], which of them are told apart: one more than the number of better methods that
    are told apart from it, and M less the number of worse ones. Two methods that are not share at
    least one rank, unless a method between them is told apart from both: a tie does not carry over
    from pair to pair, so a single number per method would say too much.
    """
    count = len(clear)
    return [
        (1 + int(clear[place, :place].sum()), count - int(clear[place, place + 1 :].sum()))
        for place in range(count)
    ]
