"""The part of the page about generated answers: how many are cut off, and how many loop."""

from __future__ import annotations

from mbench.report.page.part import Block, Notes, Part, Text
from mbench.report.statistics.boards import Board
from mbench.report.tables.answers import answers_table

INTRO = (
    "Looping: answers that end in a passage which stands there three times or more, 32 tokens or"
    " more in all. Cut off: answers that only the limit of tokens ended. Repeated: share of"
    " passages of four tokens that stood in the answer before. All are counted on the tokens as"
    " they were generated; nothing is ranked by them. Shaded: clearly more than in the unpruned"
    " model."
)


def answers_part(board: Board) -> Part | None:
    """What is folded at first: a table of each generating task at a budget."""
    tables = [
        answers_table(board, shapes, f"{board.id}-answers-{number}")
        for number, shapes in enumerate(board.answers, 1)
    ]
    if not tables:
        return None
    said = tuple(warning for shapes in board.answers for warning in shapes.warnings)
    blocks: list[Block] = [Text(INTRO, quiet=True), *tables]
    if said:
        blocks.insert(0, Notes(said))
    return Part("Generated answers: looping, cut off, length", tuple(blocks), folded=True)
