"""Items on which two models disagree, beside the difference of their means."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mbench.core.cell_results import CellResult
from mbench.report.statistics.strata import Stratum, columns_of


def items_won(strata: Sequence[Stratum], columns: Sequence[Sequence[int]]) -> np.ndarray | None:
    """float64 [methods, methods]: items that the first has right and the second wrong.

    NaN where a method has several masks; None without methods, or where an outcome is not right or
    wrong. Items count once each, whatever their weight.
    """
    if not strata or not columns or not all(stratum.right_or_wrong for stratum in strata):
        return None
    single = np.array([len(own) == 1 for own in columns])
    won = np.zeros((len(columns), len(columns)))
    for stratum in strata:
        right = (columns_of(stratum, columns) > 0).astype(float)
        won += right.T @ (1 - right)
    won[~single] = won[:, ~single] = np.nan
    return won


def choice_divergence(full: CellResult, pruned: CellResult, task: str) -> float | None:
    """Mean over items of the Kullback-Leibler divergence in nats of the pruned model's distribution
    over an item's choices from the full model's.

    The distribution is the softmax of the choices' log-likelihoods. None where a task has no
    choices, or the items differ.
    """
    before, after = _log_choices(full, task), _log_choices(pruned, task)
    if before is None or after is None or before[0] != after[0]:
        return None
    p, q = before[1], after[1]
    if p.shape != q.shape:
        return None
    there = np.isfinite(p)
    p, q = np.where(there, p, 0.0), np.where(there, q, 0.0)
    return float((np.exp(p) * (p - q)).sum(axis=1, where=there).mean())


def _log_choices(cell: CellResult, task: str) -> tuple[list[str], np.ndarray] | None:
    """Items, and log-probabilities [items, most choices] of their choices; -inf where none is."""
    table = cell.evaluations[task].items if task in cell.evaluations else None
    if table is None or "loglikelihoods" not in table or table["loglikelihoods"].isna().any():
        return None
    rows = [np.asarray(row, float) for row in table["loglikelihoods"]]
    if "acc_mutual_info" in table:
        # Every choice once more at the end, without its question.
        rows = [row[: len(row) // 2] for row in rows]
    lengths = np.array([len(row) for row in rows])
    if lengths.min() < 2:
        return None
    logs = np.full((len(rows), lengths.max()), -np.inf)
    logs[np.arange(lengths.max()) < lengths[:, None]] = np.concatenate(rows)
    logs -= logs.max(axis=1, keepdims=True)
    logs -= np.log(np.exp(logs).sum(axis=1, keepdims=True))
    return table["item"].tolist(), logs
