"""What the choice of the method changes, beside what that of the calibration text does."""

from __future__ import annotations

from mbench.report.page.part import Notes, Part, Stack
from mbench.report.statistics.boards import GroupBoards
from mbench.report.statistics.crossing import Crossing, Spread, crossings
from mbench.report.tables.crossing import crossing_table
from mbench.report.words import score_text


def method_or_text(boards: GroupBoards) -> Stack | None:
    """A table and what it says for each budget; None where methods were not crossed with texts."""
    parts = tuple(
        Part(
            crossing.board.heading,
            (crossing_table(crossing), Notes(in_words(crossing))),
            id=f"{crossing.board.id}-crossing-part",
        )
        for crossing in crossings(boards)
    )
    return Stack(parts) if parts else None


def in_words(crossing: Crossing) -> tuple[str, ...]:
    """Which of the two changes more, with both spreads, or why that is not told."""
    found = crossing.effects
    if found is None:
        return (f"Whether the method or the text changes more is not told: {crossing.untold}.",)
    verdict = {
        "methods": "The method changes more than the text.",
        "texts": "The text changes more than the method.",
        "": "Which of the two changes more cannot be told from these items.",
    }[found.larger]
    return (
        verdict,
        f"On the same text, the {len(crossing.methods)} methods differ by"
        f" {_in_words(found.methods)}",
        f"With the same method, the {len(crossing.texts)} texts differ by {_in_words(found.texts)}",
    )


def _in_words(spread: Spread) -> str:
    return (
        f"{score_text(spread.measured)} (standard deviation). The choice of items alone would give"
        f" {score_text(spread.by_items)}; less that, it is {score_text(spread.value)}"
        f" [{score_text(spread.low)}, {score_text(spread.high)}]."
    )
