"""The outcome of evaluating one mask on one task: a table of items, and the metrics that follow.

Every metric is a pure function of the per-item table, so results can be recomputed and compared
in pairs. A table has one row per item and a text column `item` that identifies the item whatever
the mask, plus either
- one column per item-wise metric (`acc`, `acc_norm`, `exact_match`, ...), mostly in [0, 1], and
  `weight` if not all items count alike; of generated answers also those of `GENERATED_METRICS`; or
- `document` (its number), `nll` (natural-log loss summed over the item), `tokens` and `bytes` that
  were scored, for perplexity. An item is what one window scores of one document, named
  `text:first scored token`; or a whole document of a task of lm-eval. The former have `top`, too:
  int32 [tokens], the most likely token at each that was scored; in results `changed` stands in its
  place (see `with_changes`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from mbench.core.batch_limit import BatchLimit
from mbench.core.item_names import ItemNames, shared
from mbench.core.item_texts import ItemText

if TYPE_CHECKING:
    import pandas as pd

PERPLEXITY_METRICS = ("perplexity", "mean_nll", "bits_per_byte")

GENERATED_METRICS = ("hit_limit", "loops", "rep_4", "answer_tokens")
"""What generated answers look like, beside the task's own metrics; nothing is ranked by them.

Means over an item's answers: the share that the limit of tokens ended, the share that ends in a
loop, the share of repeated passages of four tokens, and the number of tokens."""

LOWER_IS_BETTER = frozenset({*PERPLEXITY_METRICS, "hit_limit", "loops", "rep_4"})

NEITHER_IS_BETTER = frozenset({"answer_tokens"})

WEIGHT = "weight"
"""Column of what each item counts in every mean, at most 1; absent where all count alike."""


@dataclass(frozen=True)
class Metric:
    """One figure with its sampling error over the items."""

    name: str
    value: float
    stderr: float
    """Standard error over items; for perplexities by the delta method over documents."""
    items: int
    """How many independent units it rests on: items or, for perplexities, documents."""


@dataclass(frozen=True)
class Evaluation:
    """The outcome of one mask on one task."""

    task: str
    items: pd.DataFrame = field(repr=False, compare=False)
    metrics: tuple[Metric, ...]
    names: ItemNames = field(repr=False, compare=False)
    """Of the items; one for all outcomes on the same items."""

    @cached_property
    def columns(self) -> dict[str, np.ndarray]:
        """`item` and the numeric columns as arrays: a report reads them hundreds of times."""
        named = {str(name): self.items[name] for name in self.items}
        numeric = {name: each for name, each in named.items() if each.dtype.kind in "iuf"}
        arrays = {name: each.to_numpy(float) for name, each in numeric.items()}
        return {"item": self.names.array, **arrays}


@dataclass
class GenerationWork:
    """What generating answers took."""

    prompt_tokens: int = 0
    prompt_seconds: float = 0.0
    steps: int = 0
    """Forward passes for one token of each row."""
    answer_tokens: int = 0
    answer_seconds: float = 0.0
    ended: int = 0
    """Answers that ended before their limit."""
    begun: int = 0
    """Answers."""
    limits: int = 0
    """Of the answers begun, together."""


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
    def generated(self) -> int:
        """Of `tokens`, those generated one after another, at most; 0 where nothing is generated."""

    @property
    def item_names(self) -> list[str]:
        """The column `item` of its per-item tables."""

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics that an evaluation will have."""

    @property
    def texts(self) -> Sequence[ItemText]:
        """What its items ask; none of a perplexity text."""

    @property
    def scoring(self) -> str:
        """How the last evaluation went: `packed`, `split` (head on scored positions only), `rows`
        (answers generated side by side) or `reference` (the model's own forward, or lm-eval's
        batches); empty before the first."""

    @property
    def work(self) -> GenerationWork | None:
        """What generating the last answers took, also where an error ended it; None where none were
        generated side by side."""

    @property
    def together(self) -> Sequence[int]:
        """[items]: those of equal number are computed in one piece, and a part has all or none."""

    def part(self, numbers: Sequence[int]) -> Evaluator:
        """The same task with these of its items alone, in this order; nothing is prepared anew.

        `numbers` are places in `item_names`. An item's figures are those that it has among all, up
        to the rounding of other batches.
        """

    def join(self, tables: Sequence[pd.DataFrame]) -> Evaluation:
        """The outcome of all items from the tables of parts that make them up.

        Raises `TaskError` where only all items together show that a metric cannot be used.
        """

    def evaluate(
        self,
        model: Any,
        *,
        batch_tokens: int | BatchLimit = 8192,
        advance: Callable[[int], None] | None = None,
    ) -> Evaluation:
        """Evaluate the model as it is now, e.g. with a mask active.

        Args:
            model: a causal language model of transformers, in evaluation mode.
            batch_tokens: tokens per forward, padding included; one row may exceed it. A number is
                halved for this call where memory runs out, a limit for all that share it.
            advance: called with the number of tokens done since its last call, `tokens` in sum.

        Raises:
            TaskError: the model's output is not finite; the text names the task and the item.
        """


def evaluation(task: str, items: pd.DataFrame) -> Evaluation:
    """Derive the metrics from the per-item table (see the module's docstring)."""
    if {"document", "nll", "tokens", "bytes"} <= set(items.columns):
        metrics = _perplexity_metrics(items)
    else:
        numeric = items.select_dtypes("number").columns
        weight = items[WEIGHT].to_numpy(float) if WEIGHT in numeric else np.ones(len(items))
        metrics = tuple(
            _mean_metric(str(name), items[name].to_numpy(float), weight)
            for name in numeric
            if name != WEIGHT
        )
    table, names = shared(items)
    return Evaluation(task, table, metrics, names)


def joined(names: Sequence[str], tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """One table of items that lie in several, in the order of their names."""
    import pandas as pd

    # A column that says nothing of any item of a part is absent there.
    widest = max(tables, key=lambda table: table.shape[1])
    whole = pd.concat(tables, ignore_index=True)[list(widest.columns)]
    place = {name: row for row, name in enumerate(whole["item"])}
    return whole.iloc[[place[name] for name in names]].reset_index(drop=True)


def with_changes(pruned: Evaluation, full: Evaluation | None) -> Evaluation:
    """The outcome with a column `changed` in place of `top`: of how many tokens of a row the most
    likely one is not the full model's.

    Neither column where the full model's predictions on the same rows are not at hand: the tokens
    themselves are a hundred times as large and are kept in the store alone.
    """
    if "top" not in pruned.items:
        return pruned
    items = pruned.items.drop(columns="top")
    if full is not None and "top" in full.items and _same_rows(pruned.items, full.items):
        pairs = zip(pruned.items["top"], full.items["top"], strict=True)
        items["changed"] = [int((np.asarray(one) != np.asarray(two)).sum()) for one, two in pairs]
    return Evaluation(pruned.task, items, pruned.metrics, pruned.names)


def _same_rows(first: pd.DataFrame, second: pd.DataFrame) -> bool:
    return all(first[name].equals(second[name]) for name in ("item", "tokens"))


def changed_predictions(pruned: Evaluation) -> float | None:
    """Share of a text's scored tokens, in [0, 1], at which the most likely one is not the full
    model's; None where that was not counted."""
    columns = pruned.columns
    if "changed" not in columns:
        return None
    return float(columns["changed"].sum() / columns["tokens"].sum())


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


def _perplexity_metrics(items: pd.DataFrame) -> tuple[Metric, ...]:
    """Ratio estimates sum(nll) / sum(size); their error by linearisation over documents."""
    _, document = np.unique(items["document"], return_inverse=True)
    nll = np.bincount(document, items["nll"])
    count = len(nll)

    def ratio(size: str) -> tuple[float, float]:
        sizes = np.bincount(document, items[size])
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
        Metric("perplexity", perplexity, perplexity * mean_error, count),
        Metric("mean_nll", mean, mean_error, count),
        Metric("bits_per_byte", per_byte, per_byte_error, count),
    )
