"""The subtasks of a task: a heat map of the differences to the unpruned model, and all figures."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mbench.report import words
from mbench.report.statistics.boards import Board
from mbench.report.statistics.subtasks import Subtasks
from mbench.report.tables.table import MISSING, Cell, Column, Row, Table


def subtask_differences(board: Board, found: Subtasks, id: str) -> Table:
    """A row per subtask and a column per method; blue is better than unpruned, vermillion worse."""
    full = full_colour(found)

    def cell(row: int, column: int) -> Cell:
        return _difference(found.differences[row, column], full)

    caption = f"Subtasks of {found.task}, difference to the unpruned model: {board.where}"
    return _table(found, id, caption, "difference", cell)


def subtask_means(board: Board, found: Subtasks, id: str) -> Table:
    """A row per subtask and a column per method, with the metric itself."""

    def cell(row: int, column: int) -> Cell:
        return _mean(found.metric, found.means[row, column])

    return _table(found, id, f"Subtasks of {found.task}: {board.where}", found.metric, cell)


def full_colour(found: Subtasks) -> float:
    """The size of the difference that has the full colour, the largest; 0 where there is none."""
    sizes = np.abs(found.differences)
    return float(np.nanmax(sizes)) if np.isfinite(sizes).any() else 0.0


def _table(
    found: Subtasks, id: str, caption: str, detail: str, cell: Callable[[int, int], Cell]
) -> Table:
    columns = (
        Column("Subtask", number=False),
        Column("Items"),
        Column("unpruned", found.metric),
        *(Column(method, detail) for method in found.methods),
    )
    rows = [
        Row(
            Cell(name),
            (
                Cell(f"{items}", sort=float(items)),
                _mean(found.metric, found.unpruned[row]),
                *(cell(row, column) for column in range(len(found.methods))),
            ),
        )
        for row, (name, items) in enumerate(zip(found.names, found.items, strict=True))
    ]
    return Table(id, caption, columns, tuple(rows))


def _mean(metric: str, value: float) -> Cell:
    return (
        MISSING
        if np.isnan(value)
        else Cell(words.number(metric, value), sort=round(float(value), 4))
    )


def _difference(value: float, full: float) -> Cell:
    if np.isnan(value):
        return MISSING
    text, sort = words.difference(value), round(float(value), 4)
    if not value:
        return Cell(text, sort=sort)
    kind = "better" if value > 0 else "worse"
    return Cell(text, sort=sort, kind=kind, fill=round(100 * abs(value) / full))
