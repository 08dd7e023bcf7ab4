"""The outcome of evaluating one mask on one task: a table of items, and the metrics that follow.

Every metric is a pure function of the per-item table, so results can be recomputed and compared
in pairs. A table has one row per item and a text column `item` that identifies the item whatever
the mask, plus either
- one column per item-wise metric (`acc`, `acc_norm`, `exact_match`, ...), values in [0, 1], and
  `weight` if not all items count alike; or
- `nll` (natural-log loss summed over the item), `tokens` and `bytes` that were scored, for
  perplexity, whose items are windows named `text:first scored token`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

PERPLEXITY_METRICS = ("perplexity", "mean_nll", "bits_per_byte")

LOWER_IS_BETTER = frozenset(PERPLEXITY_METRICS)

WEIGHT = "weight"
"""Column of what each item counts in every mean, at most 1; absent where all count alike."""


@dataclass(frozen=True)
class Metric:
    """One figure with its sampling error over the items."""

    name: str
    value: float
    stderr: float
    """Standard error over items; for perplexities by the delta method over `blocks`."""
    items: int


@dataclass(frozen=True)
class Evaluation:
    """The outcome of one mask on one task."""

    task: str
    items: pd.DataFrame = field(repr=False, compare=False)
    metrics: tuple[Metric, ...]

    @cached_property
    def columns(self) -> dict[str, np.ndarray]:
        """`item` and the numeric columns as arrays: a report reads them hundreds of times."""
        numeric = self.items.select_dtypes("number")
        arrays = {str(name): numeric[name].to_numpy(float) for name in numeric}
        return {"item": self.items["item"].to_numpy(object), **arrays}


class Evaluator(Protocol):
    """A task or perplexity text, prepared once and then run on one mask after another."""

    @property
    def name(self) -> str:
        """Its name in the results."""

    @property
    def items(self) -> int:
        """Rows of the per-item table."""

    @property
    def tokens(self) -> int:
        """Forward tokens that one mask takes; for generating tasks, an upper bound."""

    @property
    def item_names(self) -> list[str]:
        """The column `item` of its per-item tables."""

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics that an evaluation will have."""

    @property
    def scoring(self) -> str:
        """How the last evaluation went: `packed`, `split` (head on scored positions only) or
        `reference` (the model's own forward throughout); empty before the first."""

    def evaluate(
        self, model: Any, *, batch_tokens: int = 8192, advance: Callable[[int], None] | None = None
    ) -> Evaluation:
        """Evaluate the model as it is now, e.g. with a mask active.

        Args:
            model: a causal language model of transformers, in evaluation mode.
            batch_tokens: tokens per forward, padding included; one row may exceed it. Bounds
                memory; can be lowered from one call to the next.
            advance: called with the number of tokens done since its last call, `tokens` in sum.

        Raises:
            TaskError: the model's output is not finite; the text names the task and the item.
        """


def evaluation(task: str, items: pd.DataFrame) -> Evaluation:
    """Derive the metrics from the per-item table (see the module's docstring)."""
    if {"nll", "tokens", "bytes"} <= set(items.columns):
        metrics = _perplexity_metrics(items)
    else:
        numeric = items.select_dtypes("number").columns
        weight = items[WEIGHT].to_numpy(float) if WEIGHT in numeric else np.ones(len(items))
        metrics = tuple(
            _mean_metric(str(name), items[name].to_numpy(float), weight)
            for name in numeric
            if name != WEIGHT
        )
    return Evaluation(task, items, metrics)


def _mean_metric(name: str, values: np.ndarray, weight: np.ndarray) -> Metric:
    """The weighted mean; its error by linearisation, which equal weights make the usual one."""
    there = ~np.isnan(values)  # in a group, not every task has every metric
    values, weight = values[there], weight[there]
    count = len(values)
    mean = float((weight * values).sum() / weight.sum()) if count else math.nan
    if count < 2:
        return Metric(name, mean, math.nan, count)
    squares = float((weight**2 * (values - mean) ** 2).sum())
    return Metric(name, mean, math.sqrt(count / (count - 1) * squares) / weight.sum(), count)


def blocks(windows: Iterable[str]) -> np.ndarray:
    """The block of each window: neighbours are alike, so a block is resampled whole; int [windows].

    A text is cut into blocks of up to n ** (1/3) neighbours, of n windows in all: the rate at which
    the error of a block bootstrap's variance vanishes fastest (Hall, Horowitz and Jing 1995,
    doi:10.1093/biomet/82.3.561). Documents of no more windows than that are a block each.

    Args:
        windows: names `text:first scored token`, in any order. Items of other names, as lm-eval's
            rolling tasks have them, are whole documents: a block each.
    """
    names = list(windows)
    if not all(re.fullmatch("[0-9]+:[0-9]+", name) for name in names):
        return np.arange(len(names))
    places = np.array([name.split(":") for name in names], int)
    order = np.lexsort((places[:, 1], places[:, 0]))
    texts = places[order, 0]
    starts = np.searchsorted(texts, texts)  # of each window's text, in the order of the texts
    within = (np.arange(len(texts)) - starts) // round(len(texts) ** (1 / 3))
    numbers = np.unique(np.column_stack([texts, within]), axis=0, return_inverse=True)[1].ravel()
    block_of_window = np.empty(len(texts), int)
    block_of_window[order] = numbers
    return block_of_window


def _perplexity_metrics(items: pd.DataFrame) -> tuple[Metric, ...]:
    """Ratio estimates sum(nll) / sum(size); their error by linearisation over `blocks`."""
    block = blocks(items["item"])
    nll = np.bincount(block, items["nll"])
    count = len(nll)

    def ratio(size: str) -> tuple[float, float]:
        sizes = np.bincount(block, items[size])
        value = float(nll.sum() / sizes.sum())
        if count < 2:
            return value, math.nan
        residual = nll - value * sizes
        variance = count / (count - 1) * (residual**2).sum() / sizes.sum() ** 2
        return value, math.sqrt(variance)

    mean, mean_error = ratio("tokens")
    per_byte, per_byte_error = (figure / math.log(2) for figure in ratio("bytes"))
    perplexity = math.exp(mean) if mean < 700 else math.inf
    return (
        Metric("perplexity", perplexity, perplexity * mean_error, len(items)),
        Metric("mean_nll", mean, mean_error, len(items)),
        Metric("bits_per_byte", per_byte, per_byte_error, len(items)),
    )
