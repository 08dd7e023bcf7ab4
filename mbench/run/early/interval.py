"""An interval for a figure over all items from some of them."""

from __future__ import annotations

import math

import numpy as np
from scipy import stats


def half_widths(
    residuals: np.ndarray, total: int, error: float, most: float | None
) -> tuple[float, float]:
    """How far below and above an estimate the figure may lie, but for a chance of `error`.

    Args:
        residuals: float64 [n] of a simple random sample without replacement (see `adjusted`).
        total: units in all.
        error: in (0, 1), for both ends together.
        most: the most that one unit can differ from its prediction; None where there is no bound.

    Three things make normal theory hold with few or rare disagreements: one unit that differs by
    `most`, or as much as any that was seen, in either direction is added (after Bonett and Price
    2012); the degrees of freedom are those of the variance's own error (Satterthwaite 1946); and
    each end is the wider of Student's and of that corrected for skew (Hall 1992).
    """
    count = len(residuals)
    left = 1 - count / total
    if left <= 0:
        return 0.0, 0.0
    if count < 2:
        return math.inf, math.inf
    centred = residuals - residuals.mean()
    added = float(np.abs(centred).max()) if most is None else most
    every = np.concatenate([centred, [added, -added]])
    variance = float((every**2).sum()) / (count - 1)
    if variance == 0:
        return 0.0, 0.0
    kurtosis = float((every**4).sum()) / count / variance**2
    freedom = max(1.0, 2 * count / max(kurtosis - 1, 2 * count / (count - 1)))
    spread = math.sqrt(variance / count * left)
    critical = float(stats.t.isf(error / 2, freedom))
    skew = float((every**3).sum()) / count / variance**1.5 * _skew_left(count, total)
    low, high = (_corrected(sign * critical, skew, count) for sign in (-1, 1))
    return spread * max(critical, high), spread * max(critical, -low)


def _skew_left(count: int, total: int) -> float:
    """By how much less skewed a mean without replacement is than with it."""
    share = count / total
    return (1 - 2 * share) / math.sqrt(1 - share)


def _corrected(quantile: float, skew: float, count: int) -> float:
    """The quantile of a studentised mean of skewed values, by Hall's transformation undone.

    With a = skew/√n, Hall's g(t) = t + a t²/3 + a² t³/27 + a/6 is close to normal, and monotone:
    1 + a (g(t) − a/6) = (1 + a t/3)³.
    """
    if abs(skew) < 1e-9:
        return quantile
    scale = skew / math.sqrt(count)
    cubed = 1 + scale * (quantile - scale / 6)
    return 3 / scale * (math.copysign(abs(cubed) ** (1 / 3), cubed) - 1)
