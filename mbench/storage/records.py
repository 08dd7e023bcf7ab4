"""Converts frozen dataclasses to plain JSON values, and back with every type checked."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")

_NOT_FINITE = ("nan", "inf", "-inf")


def to_plain(value: object) -> Any:
    """Dataclasses, mappings and sequences as JSON has them; what JSON cannot hold becomes text."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = (field.name for field in dataclasses.fields(value))
        return {name: to_plain(getattr(value, name)) for name in names}
    if isinstance(value, Mapping):
        return {str(key): to_plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(entry) for entry in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return to_plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return value if isinstance(value, (str, int, type(None))) else str(value)


def from_plain(kind: type[T], value: Any) -> T:
    """The dataclass `kind` from which `to_plain` made `value`.

    Its fields may be dataclasses, `tuple[X, ...]`, `Mapping[str, X]`, `X | None`, literals, `str`,
    `int`, `float`, `bool`, or `object` for plain values that stay as they are.

    Raises:
        ValueError: a field is missing, unknown, or of another type; the text names its place.
    """
    record: T = _read(kind, value, kind.__name__)
    return record


def _read(kind: Any, value: Any, place: str) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is object:
        return value
    if dataclasses.is_dataclass(kind):
        return _read_dataclass(kind, value, place)
    if origin is types.UnionType or origin is typing.Union:
        (other,) = (each for each in arguments if each is not types.NoneType)
        return None if value is None else _read(other, value, place)
    if origin is typing.Literal and value in arguments:
        return value
    if origin is tuple and isinstance(value, list):
        return tuple(_read(arguments[0], entry, f"{place}[{n}]") for n, entry in enumerate(value))
    if origin is Mapping and isinstance(value, dict):
        return {
            key: _read(arguments[1], entry, f"{place}[{key!r}]") for key, entry in value.items()
        }
    # A bool is an int for Python, but not in these records.
    if isinstance(value, bool) == (kind is bool):
        if kind is float and (isinstance(value, (int, float)) or value in _NOT_FINITE):
            return float(value)
        if origin is None and isinstance(value, kind):
            return value
    expected = getattr(kind, "__name__", str(kind))
    raise ValueError(f"{place} must be {expected}, not {value!r:.60}")


def _read_dataclass(kind: Any, value: Any, place: str) -> Any:
    if not isinstance(value, dict):
        raise ValueError(f"{place} must be an object, not {value!r:.60}")
    hints = typing.get_type_hints(kind)
    names = [field.name for field in dataclasses.fields(kind)]
    wrong = sorted(value.keys() ^ set(names))
    if wrong:
        problem = "lacks" if wrong[0] in names else "has an unknown field"
        raise ValueError(f"{place} {problem} {wrong[0]!r}")
    return kind(**{name: _read(hints[name], value[name], f"{place}.{name}") for name in names})
