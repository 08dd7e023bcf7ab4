"""What the choice of the method changes, beside what that of the calibration text does."""

from __future__ import annotations

from mbench.report.page.part import Part, Stack, Text
from mbench.report.statistics.boards import GroupBoards
from mbench.report.statistics.crossing import Crossing, Spread, crossings
from mbench.report.tables.crossing import crossing_table
from mbench.report.words import score_text


def method_or_text(boards: GroupBoards) -> Stack | None:
    """A table and a sentence for each budget; None where methods were not crossed with texts."""
    parts = tuple(
        Part(
            crossing.board.heading,
            (Text(in_words(crossing)), crossing_table(crossing)),
            id=f"{crossing.board.id}-crossing-part",
        )
        for crossing in crossings(boards)
    )
    return Stack(parts) if parts else None


def in_words(crossing: Crossing) -> str:
    """Which of the two changes more, with both spreads, or why that is not told."""
    found = crossing.effects
    if found is None:
        return f"Whether the method or the text changes more is not told: {crossing.untold}."
    verdict = {
        "methods": "The method changes more than the text.",
        "texts": "The text changes more than the method.",
        "": "Which of the two changes more cannot be told from these items.",
    }[found.larger]
    return (
        f"{verdict} On the same text, the {len(crossing.methods)} methods differ by"
        f" {_in_words(found.methods)}; with the same method, the {len(crossing.texts)} texts"
        f" differ by {_in_words(found.texts)}."
    )


def _in_words(spread: Spread) -> str:
    return (
        f"{score_text(spread.measured)} (standard deviation; items alone would make it"
        f" {score_text(spread.by_items)}, and without them it is {score_text(spread.value)}, 95 %"
        f" interval {score_text(spread.low)} to {score_text(spread.high)})"
    )
