"""Whether outcomes of one mask are the same measurement, made twice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mbench.core.evaluation import Evaluation

if TYPE_CHECKING:
    import pandas as pd

TOLERANCE = 1e-4
"""Relative difference of an item's outcome up to which it is the same measurement: batches of
another shape or another number of threads change the last digits of a loss."""


def agree(outcomes: Sequence[Evaluation]) -> bool:
    """Whether all give the same items the same numbers, up to `TOLERANCE`; no item is twice."""
    if all(outcome is outcomes[0] for outcome in outcomes):
        return True
    first, *others = (o.items.set_index("item").select_dtypes("number") for o in outcomes)
    for other in others:
        if set(other.columns) != set(first.columns) or set(other.index) != set(first.index):
            return False
    tables = [first.to_numpy(float)]
    tables += [other.loc[first.index, first.columns].to_numpy(float) for other in others]
    stacked = np.stack(tables)
    absent = np.isnan(stacked)
    if (absent.any(axis=0) != absent.all(axis=0)).any():
        return False
    # What is equal needs no tolerance, infinite losses among it.
    stacked = stacked[:, ~(absent.all(axis=0) | (stacked == stacked[0]).all(axis=0))]
    size = np.abs(stacked).max(axis=0)
    spread = stacked.max(axis=0) - stacked.min(axis=0)
    return bool((np.isfinite(size) & (spread <= TOLERANCE * size)).all())


def agree_in_all(one: Evaluation, two: Evaluation) -> bool:
    """Whether all else that is recorded of the items agrees, too: answers, and the log-likelihoods
    of choices, so that equal scores of unlike prompts are no repetition."""
    if not agree([one, two]):
        return False
    first, second = (e.items.set_index("item").select_dtypes(exclude="number") for e in (one, two))
    if set(first.columns) != set(second.columns):
        return False
    second = second.loc[first.index]
    return all(_alike(first[name], second[name]) for name in first)


def _alike(one: pd.Series, two: pd.Series) -> bool:
    """Whether two columns of texts are equal, or two of rows of numbers up to `TOLERANCE`."""
    if one.equals(two):
        return True
    if any(np.ndim(row) != 1 for column in (one, two) for row in column):
        return False
    if list(map(len, one)) != list(map(len, two)):
        return False
    first, second = (
        np.concatenate([np.asarray(row, float) for row in each]) for each in (one, two)
    )
    return bool(np.allclose(first, second, rtol=TOLERANCE, atol=0.0, equal_nan=True))
