"""How every early figure came about: from how many items, how well it is known, and why no more."""

from __future__ import annotations

from mbench.core.cell_results import CellResult
from mbench.core.early import EarlyFigure
from mbench.report.statistics.boards import RunBoards
from mbench.report.tables.table import Cell, Column, Row, Table
from mbench.report.words import bounds, difference, number, percent


def early_figures(run: RunBoards) -> Table | None:
    """A row for each mask and task; None where every figure is of all items."""
    several = len(run.groups) > 1
    rows = tuple(
        _row(cell, task, metric, cell.early[task], several=several)
        for cell in run.results.cells
        for task, metric in run.results.task_metrics.items()
        if task in cell.early
    )
    columns = (
        Column("Method", number=False),
        *([Column("Model", number=False)] if several else []),
        Column("Pruned"),
        Column("Task", number=False),
        Column("Estimate", "over all items"),
        Column("To unpruned", "95 % over all looks"),
        Column("Evaluated", "items"),
        Column("Predicted by", "masks with all items"),
        Column("Ended", number=False),
    )
    return Table("early-table", "Figures from some of the items", columns, rows) if rows else None


def _row(cell: CellResult, task: str, metric: str, figure: EarlyFigure, *, several: bool) -> Row:
    known = figure.untold or bounds(figure.low, figure.high)
    looks = f"look {figure.look} of {figure.looks}"
    return Row(
        Cell(cell.method, () if cell.seed is None else (f"seed {cell.seed}",)),
        (
            *([Cell(cell.model)] if several else []),
            Cell(percent(1 - cell.retain), sort=1 - cell.retain),
            Cell(task),
            Cell(number(metric, figure.figure), (metric,), figure.figure),
            Cell(difference(figure.difference), (known,), figure.difference),
            Cell(f"{figure.items:,} of {figure.of:,}", (looks,), figure.items / figure.of),
            Cell(str(figure.predictors), sort=figure.predictors),
            Cell(figure.ended),
        ),
    )
