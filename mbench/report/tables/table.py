"""Tables of the page and their parts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cell:
    """One cell: a figure or a word, and smaller lines below it."""

    text: str
    details: tuple[str, ...] = ()
    sort: float | None = None
    """The value to sort by; None sorts last in both directions."""
    kind: str = ""
    """Classes of the style sheet: `best`, `bar`, `heat`, `better`, `worse`, `significant`, `quiet`,
    `failed`, `prose`."""
    fill: int | None = None
    """Per cent: length of the `bar` behind the figure, or strength of the colour of `heat`,
    `better` and `worse`."""


@dataclass(frozen=True)
class Column:
    """A column's head."""

    text: str
    detail: str = ""
    number: bool = True


@dataclass(frozen=True)
class Row:
    """A row, headed by its first cell."""

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
    """The first one is that of the rows' heads."""
    rows: tuple[Row, ...]


MISSING = Cell("–")


def heat(share: float | None) -> Cell:
    """A share on a background whose colour is stronger the larger it is."""
    if share is None:
        return MISSING
    return Cell(f"{share:.2f}", sort=share, kind="heat", fill=round(100 * share))
