"""Where a lead comes from: on every task, the difference of each method to the leader."""

from __future__ import annotations

from mbench.core.evaluation import LOWER_IS_BETTER
from mbench.report.statistics.boards import Board
from mbench.report.statistics.task_comparisons import TaskComparison
from mbench.report.tables.table import MISSING, Cell, Column, Row, Table
from mbench.report.words import signed


def task_by_task(board: Board) -> Table | None:
    """Each method minus the leader on each task; None with fewer than two ranked methods."""
    methods = [standing.entry.method for standing in board.ranked]
    if len(methods) < 2:
        return None
    leader, *others = methods
    columns = [Column("Method", number=False)]
    for task, metric in board.results.task_metrics.items():
        unit = "log, lower is better" if metric in LOWER_IS_BETTER else metric
        floor = board.uninformative.get(task)
        columns.append(Column(task, f"at floor {floor.level:.2f}" if floor else unit))
    rows = [
        Row(Cell(method), tuple(_cell(task, leader, method) for task in board.tasks.values()))
        for method in others
    ]
    caption = f"Difference to {leader}, task by task (bold: significant): {board.where}"
    return Table(f"{board.id}-tasks", caption, tuple(columns), tuple(rows))


def _cell(task: TaskComparison, leader: str, method: str) -> Cell:
    if not task.figures.keys() >= {leader, method}:
        return MISSING
    gap = task.figures[method] - task.figures[leader]
    kind = "significant" if frozenset((leader, method)) in task.different else "quiet"
    return Cell(signed(gap), sort=gap, kind=kind)
