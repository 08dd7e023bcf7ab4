"""Tasks that are uninformative because figures on them are not told apart from guessing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import pandas as pd

from mbench.core.cell_results import CellResult
from mbench.core.evaluation import WEIGHT, Metric
from mbench.report.statistics.groups import BudgetEntries, Group

GUESSING = "not told apart from guessing"

ROOM = 0.02
"""A figure clears the floor if it is significantly more than this above it: a figure of 0.01 on a
task with free answers is partly luck with the format, and leaves nothing to lose by pruning."""


@dataclass(frozen=True)
class Floor:
    """The floor of a task that is uninformative at one budget."""

    level: float
    """What guessing gives."""
    unpruned: bool
    """Whether even the unpruned model is at the floor; otherwise every pruned one is."""


def at_floor(task: str, uninformative: Mapping[str, Floor]) -> str:
    """What a column's head adds for an uninformative task, else nothing."""
    return f", {GUESSING} ({uninformative[task].level:.2f})" if task in uninformative else ""


def level(items: pd.DataFrame, metric: str) -> float | None:
    """The share of right answers by guessing; None if outcomes are not right or wrong.

    Where every item has a fixed number of answers, as many as its log-likelihoods, it is the mean
    of one over that number, or the share of the most frequent right answer if that is more: a
    model that always gives the same answer reaches it. Right answers are known by the hash of the
    target in the item's name, and only if there are no more of them than answers to choose from.
    Tasks without fixed answers have the floor 0. Items count by their weights.
    """
    outcomes = items[metric].to_numpy(float)
    there = ~np.isnan(outcomes)
    if not there.any() or not np.isin(outcomes[there], (0, 1)).all():
        return None
    if "loglikelihoods" not in items:
        return 0.0
    scored = items[there]
    answers = scored["loglikelihoods"]
    if answers.isna().any():
        return 0.0
    # For acc_mutual_info every answer is scored with and without its question.
    counts = answers.map(len) // (2 if "acc_mutual_info" in scored else 1)
    if counts.min() < 2:
        return 0.0
    weight = scored.get(WEIGHT, pd.Series(1.0, scored.index))
    targets = weight.groupby(scored["item"].str.rsplit(":", n=1).str[-1]).sum() / weight.sum()
    constant = float(targets.max()) if len(targets) <= counts.max() else 0.0
    return max(float((weight / counts).sum() / weight.sum()), constant)


def floors(
    group: Group, budget: BudgetEntries, tasks: Mapping[str, str], significance: float = 0.05
) -> dict[str, Floor]:
    """Task -> its floor, for those of `tasks` (task -> metric) uninformative at this budget.

    A task is if the unpruned model does not clear the floor, or if no pruned model does; the
    one-sided tests are normal ones with Bonferroni's correction for the number of pruned models.
    """
    uninformative = {}
    for task, metric in tasks.items():
        full = _figures([group.unpruned] if group.unpruned else [], task, metric)
        pruned = _figures([c for e in budget.entries for c in e.cells], task, metric)
        tables = (cell.evaluations[task].items for cell, _ in (*full, *pruned))
        table = next(tables, None)
        bottom = level(table, metric) if table is not None and metric in table else None
        if bottom is None:
            continue
        if full and not _any_clears(full, bottom, significance):
            uninformative[task] = Floor(bottom, unpruned=True)
        elif (
            pruned
            and not _any_clears(pruned, bottom, significance)
            and not _early_may_clear(budget, task, bottom)
        ):
            uninformative[task] = Floor(bottom, unpruned=False)
    return uninformative


def _figures(
    cells: Sequence[CellResult], task: str, metric: str
) -> list[tuple[CellResult, Metric]]:
    figures = ((cell, cell.metric(task, metric)) for cell in cells)
    return [(cell, figure) for cell, figure in figures if figure is not None]


def _early_may_clear(budget: BudgetEntries, task: str, bottom: float) -> bool:
    """Whether some mask that was evaluated on some items may be above the floor on all of them."""
    early = (c.early[task] for e in budget.entries for c in e.cells if task in c.early)
    return any(not own.figure - own.difference + own.among_high <= bottom + ROOM for own in early)


def _any_clears(
    figures: Sequence[tuple[CellResult, Metric]], bottom: float, significance: float
) -> bool:
    quantile = NormalDist().inv_cdf(1 - significance / len(figures))
    # A figure of a single item has no error, and clears nothing.
    return any(f.value - quantile * f.stderr > bottom + ROOM for _, f in figures)
