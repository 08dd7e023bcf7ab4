"""What was found out about a run's inputs before anything was measured."""

from __future__ import annotations

from mbench.core.admission import Finding
from mbench.report.statistics.boards import RunBoards
from mbench.report.tables.table import Cell, Column, Row, Table


def what_was_measured(run: RunBoards) -> Table | None:
    """One row for each finding; None for results that have none."""
    rows = tuple(Row(Cell(each.subject), _cells(each)) for each in run.results.admission)
    columns = tuple(Column(name, number=False) for name in ("Input", "What", "Found"))
    caption = "The inputs, as they were before anything was measured"
    return Table("admission-table", caption, columns, rows) if rows else None


def _cells(finding: Finding) -> tuple[Cell, ...]:
    if finding.level == "note":
        return (Cell(finding.fact), Cell(f"Note: {finding.words}", kind="prose significant"))
    return (Cell(finding.fact), Cell(finding.words, kind="prose"))
