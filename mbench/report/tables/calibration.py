"""The calibration text of each method."""

from __future__ import annotations

from mbench.report.statistics.boards import GroupBoards
from mbench.report.tables.table import MISSING, Cell, Column, Row, Table
from mbench.report.words import tokens


def calibration(boards: GroupBoards) -> Table | None:
    """The corpora of each method, its candidate's included, and their tokens."""
    model, provenance = boards.group.model, boards.results.provenance
    mixes = provenance.mixes
    methods = provenance.methods.get(model, {})
    rows = []
    for name in boards.group.methods:
        if name not in methods:
            continue
        corpora = provenance.texts_of(model, name)
        count = provenance.calibration_tokens(model, name)
        cells = (
            Cell(
                ", ".join(corpora) or "none",
                tuple(f"{c}: {mixes[c].label}" for c in corpora if c in mixes),
            ),
            Cell(methods[name].candidate or "–"),
            MISSING if count is None else Cell(tokens(count), sort=count),
        )
        rows.append(Row(Cell(name), cells))
    if not methods:
        return None
    columns = (
        Column("Method", number=False),
        Column("Calibration texts", number=False),
        Column("Candidate", number=False),
        Column("Calibration", "tokens"),
    )
    return Table(
        f"{boards.id}-calibration",
        f"Calibration text of each method: {model}",
        columns,
        tuple(rows),
    )
