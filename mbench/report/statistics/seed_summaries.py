"""Summaries of a figure over seeds, which are replicates and never more items."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Summary:
    """A figure over seeds."""

    mean: float
    std: float
    """Sample standard deviation (ddof = 1), NaN for one seed."""
    minimum: float
    maximum: float
    count: int


def summarize(values: Iterable[float]) -> Summary:
    """Mean, sample standard deviation and range of one figure over seeds."""
    array = np.fromiter(values, float)
    if len(array) == 1:  # most methods have one mask, and a page has thousands of their figures
        only = float(array[0])
        return Summary(only, math.nan, only, only, 1)
    with np.errstate(invalid="ignore"):  # an infinite perplexity has no deviation
        std = float(array.std(ddof=1)) if len(array) else math.nan
    return Summary(float(array.mean()), std, float(array.min()), float(array.max()), len(array))
