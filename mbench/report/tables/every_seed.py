"""The figures of every seed at one budget, and their summary."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from mbench.core.cell_results import CellResult
from mbench.report.statistics.boards import Board
from mbench.report.statistics.early import estimate, value_or_early
from mbench.report.statistics.groups import Entry
from mbench.report.statistics.scores import Score
from mbench.report.statistics.seed_summaries import summarize
from mbench.report.tables.table import MISSING, Cell, Column, Row, Table
from mbench.report.words import number

SUMMARIES = {"mean": "mean", "std": "standard deviation", "minimum": "min", "maximum": "max"}
"""Field of a summary -> name of its row."""

Figure = tuple[str, Callable[[CellResult], tuple[float | None, bool]]]
"""Name of a score or metric, and the function that gives a cell's value and whether it is early."""


def every_seed(board: Board) -> Table | None:
    """The figures and summaries; None if no method has several seeds."""
    entries = [entry for entry in board.budget.entries if len(entry.cells) > 1]
    if not entries:
        return None
    columns = [Column("Method and seed", number=False)]
    figures: list[Figure] = []
    if board.score:
        columns.append(Column(board.score.name))
        figures.append((board.score.name, partial(_score, board, board.score)))
    for task, metric in board.results.task_metrics.items():
        columns.append(Column(task, metric))
        figures.append((metric, partial(_value, task, metric)))
    rows: list[Row] = []
    for entry in entries:
        rows += [_seed_row(cell, figures) for cell in entry.cells]
        rows += _summary_rows(entry, figures)
    return Table(f"{board.id}-seeds", f"Every seed: {board.where}", tuple(columns), tuple(rows))


def _score(board: Board, score: Score, cell: CellResult) -> tuple[float | None, bool]:
    whole = score.value(cell)
    if whole is not None:
        return whole, False
    found = estimate(cell, score, board.group.unpruned)
    return None if found is None else found.value, True


def _value(task: str, metric: str, cell: CellResult) -> tuple[float | None, bool]:
    return value_or_early(cell, task, metric), task in cell.early


def _seed_row(cell: CellResult, figures: Sequence[Figure]) -> Row:
    values = [(name, *value_of(cell)) for name, value_of in figures]
    cells = (
        MISSING
        if value is None
        else Cell(number(name, value), ("early",) if early else (), sort=value)
        for name, value, early in values
    )
    return Row(Cell(f"{cell.method}, seed {cell.seed}"), tuple(cells))


def _summary_rows(entry: Entry, figures: Sequence[Figure]) -> Iterator[Row]:
    """Mean, deviation and range over the seeds that have a figure, early ones included; beside the
    mean, how many have, where some have none."""
    summaries = []
    for name, value_of in figures:
        found = (value_of(cell)[0] for cell in entry.cells)
        values = [value for value in found if value is not None]
        summaries.append((name, summarize(values) if values else None))
    seeds = len(entry.cells)
    for field, label in SUMMARIES.items():
        cells = (
            MISSING
            if summary is None
            else Cell(
                number(name, getattr(summary, field), scale=summary.mean),
                (f"{summary.count} of {seeds} seeds",)
                if field == "mean" and summary.count < seeds
                else (),
            )
            for name, summary in summaries
        )
        yield Row(Cell(f"{entry.method}, {label}"), tuple(cells), "summary")
