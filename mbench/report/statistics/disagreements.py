"""Items on which two models disagree, beside the difference of their means."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mbench.core.results import CellResult


def won_and_lost(
    first: CellResult, second: CellResult, parts: Sequence[tuple[str, str]]
) -> tuple[int, int] | None:
    """Items that only the first has right, and those that only the second has, over `parts`
    (task, metric).

    None where an outcome is not right or wrong, or the items differ.
    """
    won = lost = 0
    for task, metric in parts:
        outcomes = [_outcomes(cell, task, metric) for cell in (first, second)]
        if outcomes[0] is None or outcomes[1] is None or outcomes[0].keys() != outcomes[1].keys():
            return None
        mine, other = (np.array([o[item] for item in outcomes[0]]) for o in outcomes)
        won += int((mine > other).sum())
        lost += int((mine < other).sum())
    return won, lost


def _outcomes(cell: CellResult, task: str, metric: str) -> dict[str, float] | None:
    """Item -> 0 or 1; None where that is not what the metric gives."""
    if cell.task_status(task).status != "ok":
        return None
    columns = cell.evaluations[task].columns
    if metric not in columns or not np.isin(columns[metric], (0, 1)).all():
        return None
    return dict(zip(columns["item"], columns[metric], strict=True))


def choice_divergence(full: CellResult, pruned: CellResult, task: str) -> float | None:
    """Mean over items of the Kullback-Leibler divergence in nats of the pruned model's distribution
    over an item's choices from the full model's.

    The distribution is the softmax of the choices' log-likelihoods. None where a task has no
    choices.
    """
    tables = [cell.evaluations.get(task) for cell in (full, pruned)]
    if tables[0] is None or tables[1] is None:
        return None
    columns = [
        table.items.set_index("item").get("loglikelihoods") for table in tables if table is not None
    ]
    if any(column is None or column.isna().any() for column in columns):
        return None
    theirs = columns[1].reindex(columns[0].index)
    if theirs.isna().any():
        return None
    total = 0.0
    for before, after in zip(columns[0], theirs, strict=True):
        p, q = _log_softmax(before), _log_softmax(after)
        total += float((np.exp(p) * (p - q)).sum())
    return total / len(theirs)


def _log_softmax(values: Sequence[float]) -> np.ndarray:
    array = np.asarray(values, float)
    array = array - array.max()
    result: np.ndarray = array - np.log(np.exp(array).sum())
    return result
