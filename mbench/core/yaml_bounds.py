"""Stops a YAML parser at what would grow, nest or circle beyond any sensible file."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

MOST_DEEP = 40
"""Levels of a file."""

_UNREADABLE = re.compile("[\ud800-\udfff]")
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff]")


class BeyondBounds(Exception):
    """What is wrong with a file, and where."""

    def __init__(self, problem: str, mark: Any) -> None:
        super().__init__(problem)
        self.problem = problem
        self.mark = mark
        """The parser's: with `line` and `column`, from 0."""


@dataclass
class _Open:
    """A list or mapping whose end has not been read."""

    anchor: str | None
    is_mapping: bool
    before: int
    """Values that were read before it."""
    children: int = 0


@dataclass
class YamlBounds:
    """Follows the events of PyYAML's parser or ruamel's, which are named alike.

    A value under an alias counts as often as it is used, because everything that reads the file
    later meets it as often.
    """

    most_values: int
    plain: bool
    """Whether tags and control characters are refused."""
    _values: int = 0
    _open: list[_Open] = field(default_factory=list)
    _sizes: dict[str, int] = field(default_factory=dict)

    def see(self, event: Any) -> None:
        """Take note of one event; raises `BeyondBounds`."""
        kind = type(event).__name__.removesuffix("Event")
        if kind == "DocumentStart":
            self._sizes.clear()
        elif kind in ("SequenceEnd", "MappingEnd"):
            ended = self._open.pop()
            if ended.anchor is not None:
                self._sizes[ended.anchor] = self._values - ended.before
        elif kind in ("Alias", "Scalar", "SequenceStart", "MappingStart"):
            self._see_value(kind, event)

    def _see_value(self, kind: str, event: Any) -> None:
        mark = event.start_mark
        above = self._open[-1] if self._open else None
        if above is not None:
            above.children += 1
            if above.is_mapping and above.children % 2 and kind != "Scalar":
                raise BeyondBounds("a key must be text", mark)
        before = self._values
        if kind == "Alias":
            if any(each.anchor == event.anchor for each in self._open):
                raise BeyondBounds(f"*{event.anchor} contains itself", mark)
            # One that is not known is refused by the parser's own words.
            self._values += self._sizes.get(event.anchor, 0)
        else:
            self._values += 1
            if self.plain and event.tag is not None:
                raise BeyondBounds("tags (!) mean nothing here: write the value alone", mark)
        if self._values > self.most_values:
            with_aliases = " with all its aliases" if self._sizes else ""
            problem = f"the file has more than {self.most_values} values{with_aliases}"
            raise BeyondBounds(problem, mark)
        if kind == "Scalar":
            # ruamel marks the folds of a folded text by a character that no file may hold.
            value = event.value.replace("\a", "") if event.style == ">" else event.value
            unwanted = (_CONTROL if self.plain else _UNREADABLE).search(value)
            if unwanted:
                problem = f"the text holds the character U+{ord(unwanted[0]):04X}, which is no text"
                raise BeyondBounds(problem, mark)
            if event.anchor is not None:
                self._sizes[event.anchor] = 1
        elif kind != "Alias":
            if len(self._open) == MOST_DEEP:
                raise BeyondBounds(f"nested deeper than {MOST_DEEP} levels", mark)
            self._open.append(_Open(event.anchor, kind == "MappingStart", before))
