"""The tab of stored forms: who is best with at most so many bytes."""

from __future__ import annotations

from mbench.report.charts.score_by_bytes import score_by_bytes
from mbench.report.page.part import Block, Notes, Part, Text
from mbench.report.statistics.boards import RunBoards
from mbench.report.statistics.equal_bytes import NEARLY, EqualBytes
from mbench.report.tables.equal_bytes import limit_table, limits_table
from mbench.report.words import listing, percent

HOW = (
    "Is it better to prune a model, or to store it in fewer bits? Under each limit stands what a"
    " reader with so much room could choose from: of every stored form the unpruned checkpoint if"
    " it fits, otherwise each method's largest one that does. Bytes are those of all tensors as"
    f" stored; sizes within {percent(NEARLY)} of a larger one share its limit. All pairs under a"
    " limit are compared on the same items and corrected together."
)


def equal_bytes_parts(run: RunBoards) -> tuple[Part, ...]:
    """One part for each model that was run in several stored forms."""
    return tuple(_part(board) for board in run.equal_bytes)


def _part(board: EqualBytes) -> Part:
    limits = tuple(
        Part(
            f"W{limit.words[1:]}: {len(limit.rows)} checkpoints",
            (limit_table(board, limit, number),),
            folded=True,
        )
        for number, limit in enumerate(board.limits, 1)
    )
    blocks: list[Block] = [Text(HOW, quiet=True), limits_table(board), score_by_bytes(board)]
    if notes := _notes(board):
        blocks.append(Notes(notes))
    return Part(board.heading, (*blocks, *limits), id=board.id)


def _notes(board: EqualBytes) -> tuple[str, ...]:
    notes = []
    if board.random:
        notes.append("Random pruning is no contender and is not compared here.")
    if board.unknown:
        notes.append(f"Not here, for their size is not known: {listing(board.unknown)}.")
    return tuple(notes)
