"""Beside the scores of a budget: how even and how stable masks are, and what they cost."""

from __future__ import annotations

from mbench.report.statistics.boards import Board
from mbench.report.statistics.mask_facts import MaskFacts
from mbench.report.tables.table import MISSING, Cell, Column, Row, Table
from mbench.report.words import percent, tokens


def mask_facts_table(board: Board) -> Table | None:
    """Methods in the leaderboard's order; None without masks."""
    rows = [
        Row(Cell(entry.method), _cells(board, facts))
        for entry in board.entries
        if (facts := board.facts_of(entry)) is not None
    ]
    if not rows:
        return None
    columns = (
        Column("Method", number=False),
        Column("Pruned per layer", "fewest to most"),
        Column("In their place", number=False),
        Column("Mask stability"),
        Column("Calibration", "tokens"),
        Column("Search", "tokens"),
    )
    return Table(f"{board.id}-facts", f"Masks: {board.where}", columns, tuple(rows))


def _cells(board: Board, facts: MaskFacts) -> tuple[Cell, ...]:
    most, fewest = board.experts - facts.fewest, board.experts - facts.most
    stable = facts.stability
    return (
        Cell(f"{fewest}–{most}" if facts.uneven else str(most), sort=most),
        Cell(facts.stand_in or "nothing"),
        MISSING if stable is None else Cell(percent(round(stable, 3)), sort=stable),
        _tokens(facts.calibration_tokens),
        _tokens(facts.search_tokens),
    )


def _tokens(count: int | None) -> Cell:
    return MISSING if count is None else Cell(tokens(count), sort=count)
