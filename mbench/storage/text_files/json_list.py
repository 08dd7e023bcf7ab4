"""The items of one JSON list, read as far as the next of them needs it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

NEAR_THE_END = 16
"""Characters before the end of what was read in which a value may only seem to be wrong, because
the rest of a word such as `-Infinity` or of an escape is missing."""


def items(parts: Iterator[str], decoder: json.JSONDecoder) -> Iterator[Any]:
    """Decode the items of the list that a text consists of.

    Args:
        parts: the text, in parts of any length.
        decoder: of the items.

    Raises:
        ValueError: the text is not one list, or an item is not JSON; a `RecursionError` for one
            that is nested too deeply.
    """
    text = _Text(parts, decoder)
    text.take("[")
    if text.following() == "]":
        text.take("]")
    else:
        yield text.value()
        while text.take(",]") == ",":
            yield text.value()
    if text.following():
        raise ValueError("something follows the list")


class _Text:
    """The part of the text that is being read."""

    def __init__(self, parts: Iterator[str], decoder: json.JSONDecoder) -> None:
        self._parts = parts
        self._decoder = decoder
        self._text = ""
        self._at = 0

    def following(self) -> str:
        """The next character that is no white space, or nothing at the end."""
        while True:
            while self._at < len(self._text):
                if self._text[self._at] not in " \t\r\n":
                    return self._text[self._at]
                self._at += 1
            if not self._more():
                return ""

    def take(self, expected: str) -> str:
        """Go beyond the next character, which is one of `expected`."""
        following = self.following()
        if not following:
            raise ValueError("the list does not end")
        if following not in expected:
            raise ValueError(f"{following!a} in place of {' or '.join(expected)}")
        self._at += 1
        return following

    def value(self) -> Any:
        """Go beyond the next value."""
        self.following()
        while True:
            try:
                value, self._at = self._decoder.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                unfinished = error.msg.startswith("Unterminated string")
                near = error.pos > len(self._text) - NEAR_THE_END
                if not ((unfinished or near) and self._more()):
                    raise ValueError(error.msg.removesuffix(" at")) from None
            else:
                return value

    def _more(self) -> bool:
        """Read on: twice as much as there is, so that no value is tried often."""
        read, enough = [], len(self._text) - self._at
        for part in self._parts:
            read.append(part)
            enough -= len(part)
            if enough <= 0:
                break
        self._text = self._text[self._at :] + "".join(read)
        self._at = 0
        return any(read)
