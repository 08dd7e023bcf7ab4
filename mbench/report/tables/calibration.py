"""The calibration text of each method."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from mbench.core.provenance import MethodSettings
from mbench.report.statistics.boards import GroupBoards
from mbench.report.tables.table import MISSING, Cell, Column, Row, Table


def calibration(boards: GroupBoards) -> Table | None:
    """The corpora of each method, its candidate's included, and their tokens."""
    model, provenance = boards.group.model, boards.results.provenance
    mixes = provenance.mixes
    methods, profiles = provenance.methods.get(model, {}), provenance.profiles_of(model)
    rows = []
    for name in boards.group.methods:
        if name not in methods:
            continue
        corpora = list(dict.fromkeys(_corpora(name, methods)))
        known = all(corpus in profiles for corpus in corpora)
        cells = (
            Cell(
                ", ".join(corpora) or "none",
                tuple(f"{c}: {mixes[c].label}" for c in corpora if c in mixes),
            ),
            Cell(methods[name].candidate or "–"),
            _tokens(sum(profiles[corpus].tokens for corpus in corpora)) if known else MISSING,
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


def _tokens(count: int) -> Cell:
    return Cell(f"{count:,}".replace(",", "\u2009"), sort=count)


def _corpora(method: str, methods: Mapping[str, MethodSettings]) -> Iterator[str]:
    """The method's own corpora and those of the candidate it starts from."""
    yield from methods[method].corpora
    candidate = methods[method].candidate
    if candidate is not None:
        yield from _corpora(candidate, methods)
