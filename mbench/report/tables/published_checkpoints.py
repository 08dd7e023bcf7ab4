"""Pruned checkpoints that others have published: where they are from, and what they are."""

from __future__ import annotations

from mbench.core.cell_results import CellResult
from mbench.core.results import Results
from mbench.report.statistics.boards import RunBoards
from mbench.report.statistics.published import differs_in_words, experts_in_words
from mbench.report.tables.table import MISSING, Cell, Column, Row, Table
from mbench.report.words import percent, size

CONTENT = 12
"""Characters of a hash that are shown."""


def published_checkpoints(run: RunBoards) -> Table | None:
    """One row for each; None without any."""
    results = run.results
    rows = [
        Row(Cell(cell.method, (cell.model,)), _cells(results, cell))
        for cell in results.cells
        if cell.published is not None
    ]
    columns = (
        Column("Method", "pruned from", number=False),
        Column("Pruned"),
        Column("Source", "revision, content", number=False),
        Column("Stored", "bytes", number=False),
        Column("Its experts", number=False),
        Column("Beside them", number=False),
    )
    caption = "Published checkpoints"
    return Table("published-checkpoints-table", caption, columns, tuple(rows)) if rows else None


def _cells(results: Results, cell: CellResult) -> tuple[Cell, ...]:
    told = cell.published
    if told is None:
        return ()
    weight = cell.weight_bytes
    revision = (f"revision {told.revision}",) if told.revision else ()
    form = f"as {told.stored_form}" if told.stored_form else "as plain numbers"
    return (
        Cell(percent(1 - cell.retain), (f"{cell.kept} kept",), 1 - cell.retain),
        Cell(
            f"{told.source.kind} {told.source.name}",
            (*revision, f"content {told.content.removeprefix('sha256:')[:CONTENT]}"),
            kind="prose",
        ),
        Cell(form, () if weight is None else (size(weight, "B"),), weight),
        Cell(experts_in_words(results, cell), kind="prose"),
        Cell(words, kind="prose") if (words := differs_in_words(told)) else MISSING,
    )
