"""How every early figure came about: from how many items, how well it is known, and why no more."""

from __future__ import annotations

from mbench.core.early import EarlyFigure
from mbench.core.results import CellResult
from mbench.report.statistics.boards import RunBoards
from mbench.report.tables.table import Cell, Column, Row, Table
from mbench.report.words import bounds, difference, number, percent


def early_figures(run: RunBoards) -> Table | None:
    """A row for each mask and task; None where every figure is of all items."""
    rows = tuple(
        _row(cell, task, metric, cell.early[task])
        for cell in run.results.cells
        for task, metric in run.results.task_metrics.items()
        if task in cell.early
    )
    columns = (
        Column("Method", number=False),
        Column("Model", number=False),
        Column("Pruned"),
        Column("Seed"),
        Column("Task", number=False),
        Column("Estimate", "over all items"),
        Column("vs. unpruned", "95 % over all looks"),
        Column("Items"),
        Column("Looks"),
        Column("Adjusted by", "masks with all items"),
        Column("Ended", number=False),
    )
    return Table("early-table", "Figures from some of the items", columns, rows) if rows else None


def _row(cell: CellResult, task: str, metric: str, figure: EarlyFigure) -> Row:
    known = bounds(figure.low, figure.high) or "too few items to tell"
    return Row(
        Cell(cell.method),
        (
            Cell(cell.model),
            Cell(percent(1 - cell.retain), sort=1 - cell.retain),
            Cell("" if cell.seed is None else str(cell.seed), sort=cell.seed),
            Cell(task),
            Cell(number(metric, figure.figure), (metric,), figure.figure),
            Cell(difference(figure.difference), (known,), figure.difference),
            Cell(f"{figure.items:,} of {figure.of:,}", sort=figure.items / figure.of),
            Cell(f"{figure.look} of {figure.looks}", sort=figure.look),
            Cell(str(figure.predictors), sort=figure.predictors),
            Cell(figure.ended),
        ),
    )
