"""What any table of the page is made of."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cell:
    """One entry: a figure or a word, and smaller lines under it."""

    text: str
    details: tuple[str, ...] = ()
    sort: float | None = None
    """None sorts last in both directions."""
    kind: str = ""
    """Classes of the style sheet: `best`, `bar`, `heat`, `significant`, `quiet`, `failed`,
    `prose`."""
    fill: int | None = None
    """Per cent: length of the bar behind the figure, or strength of the colour of `heat`."""


@dataclass(frozen=True)
class Column:
    """A column's head."""

    text: str
    detail: str = ""
    number: bool = True
    task: str = ""
    """Of columns that a reader may exchange for another metric of the same task."""
    metric: str = ""
    declared: bool = False
    """Whether `metric` is the one that the suite declares for the task."""


@dataclass(frozen=True)
class Row:
    """A row, headed by its first entry."""

    head: Cell
    cells: tuple[Cell, ...]
    kind: str = ""
    """A class of the style sheet: `pinned` rows stay on top, `random`, `incomplete`."""


@dataclass(frozen=True)
class Table:
    """A table with a caption."""

    id: str
    caption: str
    columns: tuple[Column, ...]
    """The first one is over the rows' heads."""
    rows: tuple[Row, ...]


MISSING = Cell("–")


def heat(share: float | None) -> Cell:
    """A share before a colour that is the stronger the larger it is."""
    if share is None:
        return MISSING
    return Cell(f"{share:.2f}", sort=share, kind="heat", fill=round(100 * share))
