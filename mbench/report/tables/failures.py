"""Cells and tasks of a run that have no result, or one that is not comparable."""

from __future__ import annotations

from mbench.core.cell_results import LACKS, UNPRUNED, CellResult
from mbench.report.statistics.boards import RunBoards
from mbench.report.tables.table import Cell, Column, Row, Table
from mbench.report.words import percent


def failures(run: RunBoards) -> Table | None:
    """Each with its full reason; None if there are none."""
    rows = []
    for cell in run.results.cells:
        if cell.status != "ok":
            rows.append(_row(cell, "mask", cell.status, cell.reason))
            continue
        for task in run.results.task_metrics:
            status = cell.task_status(task)
            if status.status in LACKS:
                rows.append(_row(cell, task, status.status, status.reason))
    rows += [
        _row(cell, "figures", "not comparable", reason)
        for group in run.groups
        for cell, reason in group.incomparable
    ]
    names = ("Method", "Model", "Pruned", "Seed", "What", "Status", "Reason")
    columns = tuple(Column(name, number=False) for name in names)
    return (
        Table("failures-table", "Results that are missing or not comparable", columns, tuple(rows))
        if rows
        else None
    )


def _row(cell: CellResult, what: str, status: str, reason: str) -> Row:
    return Row(
        Cell("unpruned" if cell.method == UNPRUNED else cell.method),
        (
            Cell(cell.model),
            Cell(percent(1 - cell.retain), sort=1 - cell.retain),
            Cell("" if cell.seed is None else str(cell.seed), sort=cell.seed),
            Cell(what),
            Cell(status, kind="failed"),
            Cell(reason or "–", kind="prose"),
        ),
    )
