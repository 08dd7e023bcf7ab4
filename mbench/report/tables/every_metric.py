"""Every metric of every task at one budget."""

from __future__ import annotations

import math

from mbench.core.evaluation import LOWER_IS_BETTER, NEITHER_IS_BETTER
from mbench.report.statistics.boards import Board
from mbench.report.statistics.floors import at_floor
from mbench.report.statistics.groups import Entry, Group
from mbench.report.tables.table import MISSING, Cell, Column, Row, Table
from mbench.report.words import number

Part = tuple[str, str]
"""(task, metric)."""


def every_metric(board: Board) -> Table:
    """Methods in the leaderboard's order; the best figure of a ranked method is marked.

    Nothing is marked where a task is not told apart from guessing.
    """
    parts = [
        (task, metric)
        for task, declared in board.results.task_metrics.items()
        for metric in _metrics(board.group, task, declared)
    ]
    best = [_best(board, part) for part in parts]
    rows = []
    if board.group.unpruned:
        unpruned = Entry("unpruned", (board.group.unpruned,))
        rows.append(Row(Cell("unpruned"), tuple(_cell(unpruned, p) for p in parts), "pinned"))
    ranked = {standing.entry.method for standing in board.ranked}
    for entry in board.entries:
        marked = entry.method in ranked
        cells = (
            _cell(entry, part, top if marked else None)
            for part, top in zip(parts, best, strict=True)
        )
        rows.append(Row(Cell(entry.method, board.marks_of(entry)), tuple(cells)))
    head = Column("Method", number=False)
    caption = f"Every metric: {board.where}"
    columns = (Column(task, _detail(board, task, metric)) for task, metric in parts)
    return Table(f"{board.id}-metrics", caption, (head, *columns), tuple(rows))


def _detail(board: Board, task: str, metric: str) -> str:
    arrow = " ↓" if metric in LOWER_IS_BETTER else ""
    return metric + arrow + at_floor(task, board.uninformative)


def _metrics(group: Group, task: str, declared: str) -> list[str]:
    """The declared metric, then all others that any cell of the group has."""
    evaluations = [c.evaluations[task] for c in group.cells.values() if task in c.evaluations]
    return list(dict.fromkeys([declared, *(m.name for e in evaluations for m in e.metrics)]))


def _best(board: Board, part: Part) -> float | None:
    """The best mean of a ranked method; None if the task is uninformative, or none is better."""
    task, metric = part
    if task in board.uninformative or metric in NEITHER_IS_BETTER:
        return None
    means = [_mean(standing.entry, part) for standing in board.ranked]
    finite = [mean for mean in means if mean is not None and not math.isnan(mean)]
    if not finite:
        return None
    return min(finite) if metric in LOWER_IS_BETTER else max(finite)


def _mean(entry: Entry, part: Part) -> float | None:
    summary = entry.summary(lambda cell: cell.value(*part))
    return None if summary is None else summary.mean


def _cell(entry: Entry, part: Part, best: float | None = None) -> Cell:
    task, metric = part
    summary = entry.summary(lambda cell: cell.value(task, metric))
    first = entry.cells[0].metric(task, metric)
    if summary is None or first is None:
        return MISSING
    error = first.stderr if summary.count == 1 else summary.std
    details = (f"± {number(metric, error, summary.mean)}",) if math.isfinite(error) else ()
    kind = "best" if summary.mean == best else ""
    return Cell(number(metric, summary.mean), details, summary.mean, kind)
