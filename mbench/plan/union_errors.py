"""Words for a value that fits none of several kinds, of which pydantic complains once for each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

MARKS = ("[key]", "[text]", "[mix]")
"""What pydantic puts into the place of an error beside keys and indices: a key itself is wrong, and
which kind of corpus it took a value for."""

KINDS = {
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "string": "text",
    "tuple": "a list",
    "list": "a list",
    "dict": "a mapping of keys to values",
    "literal": "",
}
"""First words of pydantic's types of errors; a literal itself says what it takes."""

UNLIKE = ("type", "parsing", "error", "from_float")
"""The rest of those types where a value is of another kind."""


def of_value(
    error: ValidationError, first: ErrorDetails, data: Any
) -> tuple[tuple[Any, ...], ErrorDetails, str]:
    """Where `first` is in `data`, the error that says most of the value there, and its words.

    The words, `expected a whole number or auto`, are empty but for a value that fits none of
    several kinds. Where it fits one, the error is what else is wrong with it.
    """
    whole = _place(first)
    place = whole[: _depth(data, whole, first["input"])]
    if place == whole:
        return place, first, ""
    same = [each for each in error.errors() if _place(each)[: len(place)] == place]
    for each in same:
        if _kind(each) is None:
            return place, each, ""
    return place, first, _expected(same)


def _place(error: ErrorDetails) -> tuple[Any, ...]:
    return tuple(part for part in error["loc"] if part not in MARKS)


def _depth(data: Any, place: Sequence[Any], given: Any) -> int:
    """How many parts of a place are keys and indices; then comes what a value was tried as."""
    for depth, part in enumerate(place):
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            missing = isinstance(data, dict | list | tuple) and data != given
            return len(place) if missing else depth
    return len(place)


def _kind(error: ErrorDetails) -> str | None:
    kind, _, problem = error["type"].partition("_")
    if kind not in KINDS or problem not in UNLIKE:
        return None
    return KINDS[kind] or str(error["ctx"]["expected"]).replace("'", "")


def _expected(errors: Sequence[ErrorDetails]) -> str:
    *others, last = dict.fromkeys(kind for each in errors if (kind := _kind(each)))
    return f"expected {', '.join(others)} or {last}" if others else f"expected {last}"
