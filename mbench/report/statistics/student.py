"""Student's distribution, to the last bit as `scipy.stats` has it, which takes a second to load."""

from __future__ import annotations

import numpy as np


def upper_tail(value: np.ndarray, freedom: np.ndarray) -> np.ndarray:
    """P(T > value), element by element; NaN without degrees of freedom."""
    from scipy.special import stdtr

    value, freedom = np.broadcast_arrays(value, freedom)
    tail: np.ndarray = stdtr(freedom, -value)
    return np.where((freedom > 0) & ~np.isnan(value), tail, np.nan)


def quantile(tail: np.ndarray | float, freedom: np.ndarray | float) -> np.ndarray:
    """The value above which lies `tail`, element by element; NaN without degrees of freedom."""
    from scipy.special import stdtrit

    tail, freedom = np.broadcast_arrays(tail, freedom)
    inner = -stdtrit(freedom, tail)
    ends = np.select([tail == 0, tail == 1], [np.inf, -np.inf], np.nan)
    value = np.where((tail > 0) & (tail < 1), inner, ends)
    return np.where(freedom > 0, value, np.nan)
