"""The subtasks of a group of tasks, e.g. the 57 subjects of MMLU, at one budget."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mbench.core.cell_results import CellResult
from mbench.core.evaluation import LOWER_IS_BETTER
from mbench.report.statistics.boards import Board

NORMAL = 1.96
"""Standard errors on either side of a 95 % interval."""


@dataclass(frozen=True)
class Subtasks:
    """S subtasks of one task and the M methods of a budget that have outcomes on it."""

    task: str
    metric: str
    names: tuple[str, ...]
    items: np.ndarray
    """int [S], items of each."""
    methods: tuple[str, ...]
    """In the leaderboard's order."""
    unpruned: np.ndarray
    """float64 [S], means of the metric; NaN where there is no unpruned model."""
    means: np.ndarray
    """float64 [S, M], means of the metric over items, and over masks where there are several."""
    margin: float
    """Of the intervals [difference - margin, difference + margin] that hold 95 % of the time for
    one difference to the unpruned model, the median over subtasks and methods; else NaN."""

    @property
    def differences(self) -> np.ndarray:
        """float64 [S, M], means minus those of the unpruned model; NaN where there is none."""
        differences: np.ndarray = self.means - self.unpruned[:, None]
        return differences


def subtasks(board: Board) -> Iterator[Subtasks]:
    """Of every task whose items name two subtasks or more."""
    for task, metric in board.results.task_metrics.items():
        if metric not in LOWER_IS_BETTER:
            found = _subtasks(board, task, metric)
            if found is not None:
                yield found


def subtask_of(item: str) -> str:
    """What stands before the number of an item `subtask/number:hashes`; empty if nothing does."""
    return item.partition(":")[0].rpartition("/")[0]


def _subtasks(board: Board, task: str, metric: str) -> Subtasks | None:
    cells = {entry.method: entry.cells for entry in board.entries}
    full = board.group.unpruned
    first = next((c for c in board.group.cells.values() if task in c.evaluations), None)
    if first is None:
        return None
    items = first.evaluations[task].columns["item"]
    numbers: dict[str, int] = {}
    codes = np.array([numbers.setdefault(subtask_of(item), len(numbers)) for item in items])
    if len(numbers) < 2:
        return None
    outcomes = {
        method: found
        for method, own in cells.items()
        if (found := _outcomes(own, task, metric, items)) is not None
    }
    if not outcomes:
        return None
    of_full = None if full is None else _outcomes((full,), task, metric, items)
    unpruned = np.full(len(items), np.nan) if of_full is None else of_full
    margins = [_margins(own - unpruned, codes, len(numbers)) for own in outcomes.values()]
    return Subtasks(
        task=task,
        metric=metric,
        names=tuple(numbers),
        items=np.bincount(codes),
        methods=tuple(outcomes),
        unpruned=_means(unpruned, codes, len(numbers)),
        means=np.stack([_means(own, codes, len(numbers)) for own in outcomes.values()], axis=1),
        margin=float(np.median(margins)),
    )


def _outcomes(
    cells: tuple[CellResult, ...], task: str, metric: str, items: np.ndarray
) -> np.ndarray | None:
    """Each item's outcome, the mean over the masks; None unless all masks have these items."""
    found = []
    for cell in cells:
        columns = cell.evaluations[task].columns if task in cell.evaluations else {}
        if metric not in columns or not np.array_equal(columns["item"], items):
            return None
        found.append(columns[metric])
    mean: np.ndarray = np.mean(found, axis=0)
    return mean


def _means(values: np.ndarray, codes: np.ndarray, count: int) -> np.ndarray:
    means: np.ndarray = np.bincount(codes, values, count) / np.bincount(codes, minlength=count)
    return means


def _margins(values: np.ndarray, codes: np.ndarray, count: int) -> np.ndarray:
    """float64 [S], half the 95 % intervals of the subtasks' means of values by item."""
    size = np.bincount(codes, minlength=count)
    squares = _means(values**2, codes, count) - _means(values, codes, count) ** 2
    with np.errstate(divide="ignore", invalid="ignore"):
        margins: np.ndarray = NORMAL * np.sqrt(np.maximum(squares, 0) / (size - 1))
    return margins
