"""What evaluating one mask on one task gives: outcomes per item, and metrics that follow from them.

Every metric is a pure function of the per-item table, so results can be recomputed and compared
in pairs. A table has one row per item and a text column `item` that is equal for equal items
whatever the mask, plus either
- one column per item-wise metric (`acc`, `acc_norm`, `exact_match`, ...), values in [0, 1]; or
- `nll` (natural-log loss summed over the item), `tokens` and `bytes` that were scored, for
  perplexity.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

LOWER_IS_BETTER = frozenset({"perplexity", "mean_nll", "bits_per_byte"})


@dataclass(frozen=True)
class Metric:
    """One figure with its sampling error over the items."""

    name: str
    value: float
    stderr: float
    """Standard error over items; for perplexities by the delta method over windows."""
    items: int


@dataclass(frozen=True)
class Evaluation:
    """The outcome of one mask on one task."""

    task: str
    items: pd.DataFrame = field(repr=False, compare=False)
    metrics: tuple[Metric, ...]


def evaluation(task: str, items: pd.DataFrame) -> Evaluation:
    """Derive the metrics from the per-item table (see the module's docstring)."""
    if {"nll", "tokens", "bytes"} <= set(items.columns):
        metrics = _perplexity_metrics(items)
    else:
        numeric = items.select_dtypes("number").columns
        metrics = tuple(_mean_metric(name, items[name]) for name in numeric)
    return Evaluation(task, items, metrics)


def _mean_metric(name: str, values: pd.Series) -> Metric:
    count = len(values)
    stderr = float(values.std(ddof=1) / math.sqrt(count)) if count > 1 else math.nan
    return Metric(str(name), float(values.mean()), stderr, count)


def _perplexity_metrics(items: pd.DataFrame) -> tuple[Metric, ...]:
    """Ratio estimates sum(nll) / sum(size); their error by linearisation over the windows."""
    nll = items["nll"].to_numpy(float)
    count = len(nll)

    def ratio(size: str) -> tuple[float, float]:
        sizes = items[size].to_numpy(float)
        value = nll.sum() / sizes.sum()
        if count < 2:
            return value, math.nan
        residual = nll - value * sizes
        variance = count / (count - 1) * (residual**2).sum() / sizes.sum() ** 2
        return value, math.sqrt(variance)

    mean, mean_error = ratio("tokens")
    per_byte, per_byte_error = (figure / math.log(2) for figure in ratio("bytes"))
    perplexity = math.exp(mean) if mean < 700 else math.inf
    return (
        Metric("perplexity", perplexity, perplexity * mean_error, count),
        Metric("mean_nll", mean, mean_error, count),
        Metric("bits_per_byte", per_byte, per_byte_error, count),
    )
