"""Overlap of the experts that the methods of one budget keep."""

from __future__ import annotations

from mbench.report.statistics.boards import Board
from mbench.report.statistics.mask_overlap import mean_jaccard, mean_jaccard_of_seeds
from mbench.report.tables.table import Cell, Column, Row, Table, heat

MOST = 20
"""Methods up to which all pairs stand in a table; the score maps give any pair."""


def mask_overlap(board: Board) -> Table | None:
    """Every method against every other, in the leaderboard's order; None without masks, or with
    more methods than anybody reads pairs of."""
    masks = {entry.method: board.masks_of(entry) for entry in board.entries}
    masks = {method: keeps for method, keeps in masks.items() if keeps}
    if not masks or len(masks) > MOST:
        return None
    rows = []
    for method, keeps in masks.items():
        shares = (
            mean_jaccard_of_seeds(keeps) if other == method else mean_jaccard(keeps, others)
            for other, others in masks.items()
        )
        rows.append(Row(Cell(method), tuple(map(heat, shares))))
    columns = (Column("Method", number=False), *map(Column, masks))
    caption = f"Mean Jaccard overlap of the kept experts: {board.where}"
    return Table(f"{board.id}-overlap", caption, columns, tuple(rows))
