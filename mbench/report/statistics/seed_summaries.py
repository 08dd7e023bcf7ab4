"""Summaries of a figure over seeds, and the error of their mean.

Seeds are replicates: their spread is an error of its own, and seeds are never treated as more
items.
"""

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
    with np.errstate(invalid="ignore"):  # an infinite perplexity has no deviation
        std = float(array.std(ddof=1)) if len(array) > 1 else math.nan
    return Summary(float(array.mean()), std, float(array.min()), float(array.max()), len(array))


def seed_error(values: np.ndarray, of_items: float) -> float:
    """Standard error of a mean over seeds [S] due to the choice of seeds; 0 for one seed.

    `of_items` is the part of the seeds' variance that sampling of items explains. It is not
    subtracted for two seeds: their variance is so uncertain that 5 % tests would reject 8 %.
    """
    if len(values) == 1:
        return 0.0
    explained = of_items if len(values) > 2 else 0.0
    return math.sqrt(max(0.0, values.var(ddof=1) - explained) / len(values))
