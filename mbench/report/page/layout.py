"""Combines parts of the page. A part is a function of boards that returns a block, or None where
it has nothing to show; the functions here make such a function of several.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from mbench.report.page.part import Block, Notes, Part, SideBySide, Stack, Text
from mbench.report.statistics.boards import Board, GroupBoards, RunBoards

B = TypeVar("B", Board, GroupBoards, RunBoards)


def shown(boards: B, parts: Iterable[Callable[[B], Block | None]]) -> tuple[Block, ...]:
    """The blocks of those parts that have something to show."""
    blocks = (part(boards) for part in parts)
    return tuple(block for block in blocks if block is not None)


def folded(
    title: str, *parts: Callable[[B], Block | None], note: str = ""
) -> Callable[[B], Part | None]:
    """Parts in a section that is folded at first, with a note after them."""

    def show(boards: B) -> Part | None:
        blocks = list(shown(boards, parts))
        if not blocks:
            return None
        if note:
            blocks.append(Text(note, quiet=True))
        return Part(title, tuple(blocks), folded=True)

    return show


def section(
    title: str, name: str, *parts: Callable[[GroupBoards], Block | None], intro: str = ""
) -> Callable[[GroupBoards], Part | None]:
    """Parts of a model under a heading; the section's address ends with `name`."""

    def show(boards: GroupBoards) -> Part | None:
        blocks = list(shown(boards, parts))
        if not blocks:
            return None
        if intro:
            blocks.insert(0, Text(intro))
        return Part(title, tuple(blocks), id=f"{boards.id}-{name}")

    return show


def side_by_side(*parts: Callable[[B], Block | None]) -> Callable[[B], SideBySide | None]:
    """Parts next to each other."""

    def show(boards: B) -> SideBySide | None:
        blocks = shown(boards, parts)
        return SideBySide(blocks) if blocks else None

    return show


def per_budget(part: Callable[[Board], Block | None]) -> Callable[[GroupBoards], Stack | None]:
    """A part, for every budget of a model."""

    def show(boards: GroupBoards) -> Stack | None:
        blocks = tuple(block for board in boards.boards if (block := part(board)) is not None)
        return Stack(blocks) if blocks else None

    return show


def notes(sentences: Callable[[B], Sequence[str]]) -> Callable[[B], Notes | None]:
    """Sentences as a list."""

    def show(boards: B) -> Notes | None:
        lines = tuple(sentences(boards))
        return Notes(lines) if lines else None

    return show
