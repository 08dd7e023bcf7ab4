"""YAML as plain values that remember where in the text they stand; of bounded size, as a tree."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.constructor import ConstructorError, RoundTripConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.parser import RoundTripParser
from ruamel.yaml.reader import ReaderError
from ruamel.yaml.scalarbool import ScalarBoolean

from mbench.core.errors import SuiteError, shortened, shown
from mbench.core.yaml_bounds import BeyondBounds, YamlBounds

MOST_VALUES = 10_000
"""In a suite file; reading so many takes a third of a second."""

Position = tuple[int, int]
"""Line and column, from 0."""


class PlacedMap(dict[str, Any]):
    """A mapping of YAML."""

    position: Position = (0, 0)
    positions: dict[str, Position]
    """Of its keys."""

    def __init__(self) -> None:
        super().__init__()
        self.positions = {}


class PlacedList(list[Any]):
    """A list of YAML."""

    positions: list[Position]
    """Of its values as they were read."""

    def __init__(self) -> None:
        super().__init__()
        self.positions = []


def parse(text: str, where: str) -> Any:
    """The value of a YAML text: scalars, `PlacedMap` and `PlacedList`.

    Aliases and merged keys are written out, so that changing one place changes no other. Raises
    `SuiteError`, which begins with `where` and the line and column: malformed, a repeated key, a
    key that is not text, a tag, a control character, or too much of anything.
    """
    parser = YAML(typ="rt")
    parser.Parser = _Parser
    parser.Constructor = _Constructor
    # Using an anchor anew is no mistake.
    parser.composer.warn_double_anchors = False
    try:
        return _tree(parser.load(text))
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = error.problem or "malformed YAML"
        if problem.startswith("but "):
            problem = f"{error.context} {problem}"
        raise _error(where, mark, problem) from None
    except BeyondBounds as error:
        raise _error(where, error.mark, error.problem) from None
    except ReaderError as error:
        before = text[: error.position]
        mark = _Mark(before.count("\n"), len(before) - before.rfind("\n") - 1)
        raise _error(where, mark, f"the character U+{error.character:04X} is no text") from None
    except YAMLError as error:
        raise _error(where, None, f"malformed YAML: {error}") from None


def placed(value: Any, where: str) -> Any:
    """Python's own values as `parse` gives them, copied; raises `SuiteError` for any other.

    Paths become text, and NumPy's scalars the numbers that they are.
    """
    left = MOST_VALUES

    def copied(value: Any, name: str) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise SuiteError(f"{where}: more than {MOST_VALUES} values")
        if isinstance(value, Mapping):
            made = PlacedMap()
            for key, item in value.items():
                if not isinstance(key, str):
                    raise SuiteError(f"{where}: {name}: a key must be text, not {shown(key)}")
                made[key] = copied(item, f"{name}.{key}" if name else key)
                made.positions[key] = made.position
            return made
        if isinstance(value, list | tuple):
            items = PlacedList()
            for number, item in enumerate(value):
                items.append(copied(item, f"{name}.{number}"))
                items.positions.append((0, 0))
            return items
        if isinstance(value, Path):
            return str(value)
        scalar = value.item() if hasattr(value, "item") and hasattr(value, "dtype") else value
        if scalar is None or type(scalar) in (bool, int, float, str):
            return scalar
        raise SuiteError(f"{where}: {name}: no value of a suite: {shown(value)}")

    return copied(value, "")


def _error(where: str, mark: Any, problem: str) -> SuiteError:
    place = f"{where}:{mark.line + 1}:{mark.column + 1}" if mark else where
    return SuiteError(f"{place}: {shortened(' '.join(problem.split()))}")


@dataclass(frozen=True)
class _Mark:
    line: int
    column: int


class _Parser(RoundTripParser):
    """Stops before a file grows out of hand."""

    def __init__(self, loader: Any) -> None:
        super().__init__(loader)
        self._bounds = YamlBounds(MOST_VALUES, plain=True)

    def get_event(self) -> Any:
        event = super().get_event()
        self._bounds.see(event)
        return event


class _Constructor(RoundTripConstructor):
    """Names the place of a value that cannot be, such as a date of the 13th month."""

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except YAMLError:
            raise
        # What the conversions of single values raise.
        except (ValueError, TypeError, ArithmeticError, LookupError, AttributeError) as error:
            kind = str(node.tag).rpartition(":")[2]
            problem = f"this is no {kind}: {shown(node.value)}"
            raise ConstructorError(None, None, problem, node.start_mark) from error


def _tree(data: Any) -> Any:
    if isinstance(data, CommentedMap):
        made = PlacedMap()
        made.position = (data.lc.line, data.lc.col)
        known = data.lc.data or {}
        for key, value in data.items():
            position = (known[key][0], known[key][1]) if key in known else made.position
            if not isinstance(key, str):
                problem = f"a key must be text: write '{shortened(str(key))}' in quotes"
                raise BeyondBounds(problem, _Mark(*position))
            # The parser's own type of text would not be taken for text everywhere.
            made[str(key)] = _tree(value)
            made.positions[str(key)] = position
        return made
    if isinstance(data, CommentedSeq):
        items = PlacedList()
        for index, value in enumerate(data):
            items.append(_tree(value))
            items.positions.append(data.lc.item(index))
        return items
    if isinstance(data, ScalarBoolean):
        return bool(data)
    for kind in (bool, int, float, str):
        # The round-trip parser's own scalar types would fail strict validation.
        if isinstance(data, kind):
            return kind(data)
    if type(data) is datetime.date:
        return data.isoformat()  # as JSON has it, and as whoever reads it takes it
    return data
