"""The figures of every seed at one budget, and their summary."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from mbench.core.results import CellResult
from mbench.report.statistics.boards import Board
from mbench.report.statistics.groups import Entry
from mbench.report.statistics.seed_summaries import summarize
from mbench.report.tables.table import MISSING, Cell, Column, Row, Table
from mbench.report.words import number

SUMMARIES = {"mean": "mean", "std": "standard deviation", "minimum": "min", "maximum": "max"}
"""Field of a summary -> name of its row."""

Figure = tuple[str, Callable[[CellResult], float | None]]
"""Name of a score or metric, and the function that gives a cell's value."""


def every_seed(board: Board) -> Table | None:
    """The figures and summaries; None if no method has several seeds."""
    entries = [entry for entry in board.budget.entries if len(entry.cells) > 1]
    if not entries:
        return None
    columns = [Column("Method and seed", number=False)]
    figures: list[Figure] = []
    if board.score:
        columns.append(Column(board.score.name))
        figures.append((board.score.name, board.score.value))
    for task, metric in board.results.task_metrics.items():
        columns.append(Column(task, metric))
        figures.append((metric, partial(_value, task, metric)))
    rows: list[Row] = []
    for entry in entries:
        rows += [_seed_row(cell, figures) for cell in entry.cells]
        rows += _summary_rows(entry, figures)
    return Table(f"{board.id}-seeds", f"Every seed: {board.where}", tuple(columns), tuple(rows))


def _value(task: str, metric: str, cell: CellResult) -> float | None:
    return cell.value(task, metric)


def _seed_row(cell: CellResult, figures: Sequence[Figure]) -> Row:
    values = [(name, value_of(cell)) for name, value_of in figures]
    cells = (
        MISSING if value is None else Cell(number(name, value), sort=value)
        for name, value in values
    )
    return Row(Cell(f"{cell.method}, seed {cell.seed}"), tuple(cells))


def _summary_rows(entry: Entry, figures: Sequence[Figure]) -> Iterator[Row]:
    """Mean, deviation and range over the seeds that have a figure."""
    summaries = []
    for name, value_of in figures:
        values = [value for value in map(value_of, entry.cells) if value is not None]
        summaries.append((name, summarize(values) if values else None))
    for field, label in SUMMARIES.items():
        cells = (
            MISSING
            if summary is None
            else Cell(number(name, getattr(summary, field), scale=summary.mean))
            for name, summary in summaries
        )
        yield Row(Cell(f"{entry.method}, {label}"), tuple(cells), "summary")
