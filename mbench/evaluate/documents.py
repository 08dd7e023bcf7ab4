"""Where the documents of a text begin: what lies in one document is alike, documents are not."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

HEADING = re.compile(r" = (?!= )\S.*(?<! =) = ?")
"""A line of WikiText that begins an article, ` = Title = `; those of sections have more `=`."""

RECOGNISED = 2
"""Headings from which on a text is taken for WikiText, if the suite says nothing of it."""

Kind = Literal["records", "wikitext", "whole"]


@dataclass
class Documents:
    """Notes where documents begin while a text is read; positions are bytes of all that was read.

    Every record is one, or every article of WikiText, whose records are lines; or it is not known
    where they begin, and the text counts as one (`whole`).
    """

    kind: Kind | None
    """What the suite says; None: `wikitext` if there are headings of articles, else `records`."""
    join: str
    """What stands between records."""
    records: list[int] = field(default_factory=list)
    """Where each record begins."""
    headings: list[int] = field(default_factory=list)
    """Where each heading of an article begins."""

    def read(self, records: Iterable[Iterable[str]]) -> Iterator[Iterator[str]]:
        """The records, each in parts, unchanged; what is left of one is read when the next is asked
        for."""
        position = 0
        between = len(self.join.encode())
        for record in records:
            self.records.append(position)
            lines = _Lines(position, self.headings)
            parts = lines.read(record)
            yield parts
            for _ in parts:
                pass
            position = lines.end + between

    def begin_of(self, record: int) -> int:
        """Where a record begins; 0 in a text without any."""
        return self.records[record] if self.records else 0

    @property
    def found(self) -> Kind:
        """What the documents of the text read so far are."""
        if self.kind is not None:
            return self.kind
        return "wikitext" if len(self.headings) >= RECOGNISED else "records"

    @property
    def begins(self) -> np.ndarray:
        """int64, where each document of the text read so far begins."""
        begins = {"records": self.records, "wikitext": self.headings, "whole": [0]}[self.found]
        return np.array(begins, np.int64)


def documents_at(positions: np.ndarray, begins: np.ndarray) -> np.ndarray:
    """int64, the number of the document that each position lies in."""
    # What stands before the first heading counts with the first article.
    return np.maximum(np.searchsorted(begins, positions, side="right"), 1)


class _Lines:
    """One record: how many bytes it has, and which of its lines are headings."""

    def __init__(self, start: int, headings: list[int]) -> None:
        self.end = start
        self._headings = headings

    def read(self, parts: Iterable[str]) -> Iterator[str]:
        line, begin = "", self.end
        for part in parts:
            *whole, rest = (line + part).split("\n")
            for text in whole:
                self._look(text, begin)
                begin += len(text.encode()) + 1
            line = rest
            self.end += len(part.encode())
            yield part
        self._look(line, begin)

    def _look(self, line: str, begin: int) -> None:
        if HEADING.fullmatch(line):
            self._headings.append(begin)
