"""An interval for a figure over all items from some of them."""

from __future__ import annotations

import math

import numpy as np


def half_widths(
    residuals: np.ndarray, total: int, error: float, most: float | None
) -> tuple[float, float]:
    """How far below and above an estimate the figure may lie, but for a chance of `error`.

    Args:
        residuals: float64 [n] of a simple random sample without replacement (see `adjusted`).
        total: units in all.
        error: in (0, 1), for both ends together.
        most: the most that one unit can differ from its prediction; None where there is no bound.

    Three things make normal theory hold with few or rare disagreements. One unit that differs by
    `most`, or as much as any that was seen, in either direction is added (after Bonett and Price
    2012), but counts the less the more were seen: half of it where four were, or what amounts to
    four. The degrees of freedom are those of the variance's own error (Satterthwaite 1946). And
    ends are corrected for skew (Hall 1992); of losses, whose tails no bound holds, each is the
    wider of that and Student's.
    """
    # Of no use to a report without early figures. `scipy.stats` would take a second to load.
    from scipy.special import stdtrit

    count = len(residuals)
    left = 1 - count / total
    if left <= 0:
        return 0.0, 0.0
    if count < 2:
        return math.inf, math.inf
    centred = residuals - residuals.mean()
    added = float(np.abs(centred).max()) if most is None else most
    if added == 0:
        return 0.0, 0.0
    weight = unseen_weight(centred, added)
    variance = (float((centred**2).sum()) + 2 * weight * added**2) / (count - 1)
    fourth = float((centred**4).sum()) + 2 * weight * added**4
    freedom = freedom_of(variance, fourth / count, count)
    spread = math.sqrt(variance / count * left)
    critical = -float(stdtrit(freedom, error / 2))  # Student's
    skew = float((centred**3).sum()) / count / variance**1.5 * _skew_left(count, total)
    low, high = (_corrected(sign * critical, skew, count) for sign in (-1, 1))
    if most is None:
        low, high = min(low, -critical), max(high, critical)
    return spread * high, -spread * low


def unseen_weight(centred: np.ndarray, added: float) -> float:
    """What a unit counts that is added to those seen: 1 where none differs, 1/2 where four do."""
    return 1 / (1 + float(((centred / added) ** 2).sum()) / 4)


def freedom_of(variance: float, fourth: float, count: int) -> float:
    """Degrees of freedom of a variance of so many values with this fourth central moment."""
    return max(1.0, 2 * count / max(fourth / variance**2 - 1, 2 * count / (count - 1)))


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
