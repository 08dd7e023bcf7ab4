"""What was found out about a run's inputs before anything was measured."""

from __future__ import annotations

from mbench.report.statistics.boards import RunBoards
from mbench.report.tables.table import Cell, Column, Row, Table


def what_was_measured(run: RunBoards) -> Table | None:
    """One row for each finding; None for results that have none."""
    rows = tuple(
        Row(
            Cell(finding.subject),
            (Cell(finding.fact), Cell(finding.level), Cell(finding.words, kind="prose")),
        )
        for finding in run.results.admission
    )
    columns = tuple(Column(name, number=False) for name in ("Input", "What", "Level", "Found"))
    return Table("admission-table", "What was measured", columns, rows) if rows else None
