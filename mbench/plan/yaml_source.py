"""A YAML file that remembers where every key and value stands, for errors as file:line:column."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from mbench.core.errors import SuiteError, unknown

Place = tuple[Any, ...]
"""Keys and indices from the top of the document to a value."""


@dataclass
class YamlSource:
    """A parsed file, changed in memory by command-line options whose names errors then quote."""

    path: Path
    data: CommentedMap
    changed: dict[Place, str] = field(default_factory=dict)
    """place -> the option that put it there."""

    @classmethod
    def read(cls, path: Path) -> YamlSource:
        """Parse a file; raises `SuiteError` for a missing or malformed one, or a repeated key."""
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            near = sorted(str(other) for other in path.parent.glob("*.yaml"))
            hint = f" (there: {', '.join(near)})" if near else ""
            raise SuiteError(f"{path}: no such suite file{hint}") from None
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
            raise SuiteError(f"{path}: cannot be read: {reason}") from None
        try:
            data = YAML(typ="rt").load(text)
        except MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            place = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
            problem = " ".join((error.problem or "malformed YAML").split())
            raise SuiteError(f"{place}: {problem}") from None
        except (YAMLError, ValueError) as error:
            raise SuiteError(f"{path}: malformed YAML: {' '.join(str(error).split())}") from None
        if not isinstance(data, CommentedMap):
            raise SuiteError(f"{path}:1:1: a suite is a mapping of keys to values")
        return cls(path, data)

    def plain(self) -> dict[str, Any]:
        """The data as ordinary dictionaries, tuples and scalars."""
        plain: dict[str, Any] = _plain(self.data)
        return plain

    def assign(self, assignment: str) -> None:
        """Carry out `--set a.b.c=VALUE`, VALUE in YAML."""
        target, separator, text = assignment.partition("=")
        if not separator or not target:
            raise SuiteError(f"--set takes KEY.KEY=VALUE, got {assignment!r}")
        try:
            value = YAML(typ="safe").load(text)
        except YAMLError:
            raise SuiteError(f"--set {assignment}: the value is not YAML") from None
        self.replace(tuple(self._keys(target.split("."))), value, f"--set {assignment}")

    def _keys(self, parts: Sequence[str]) -> Iterable[Any]:
        """Join parts again where a key itself contains dots, e.g. a model named qwen1.5."""
        node: Any = self.data
        parts = list(parts)
        while parts:
            for size in range(len(parts), 0, -1):
                key = ".".join(parts[:size])
                if isinstance(node, dict) and key in node:
                    break
            else:
                size, key = 1, parts[0]
            yield int(key) if isinstance(node, list) and key.isdigit() else key
            try:
                node = node[int(key) if isinstance(node, list) else key]
            except (KeyError, IndexError, TypeError, ValueError):
                node = None
            parts = parts[size:]

    def replace(self, place: Place, value: Any, option: str) -> None:
        """Put a value at a place, creating mappings on the way."""
        node: Any = self.data
        for key in place[:-1]:
            if isinstance(node, dict) and node.get(key) is None:
                node[key] = {}
            try:
                node = node[key]
            except (KeyError, IndexError, TypeError):
                raise SuiteError(f"{option}: no {key!r} to set anything in") from None
        try:
            node[place[-1]] = value
        except (IndexError, TypeError):
            raise SuiteError(f"{option}: cannot set {place[-1]!r} there") from None
        self.changed[place] = option

    def where(self, place: Place) -> str:
        """`file:line:column` of a place, or the option that set it."""
        for length in range(len(place), 0, -1):
            if place[:length] in self.changed:
                return self.changed[place[:length]]
        node: Any = self.data
        line, column = 0, 0
        for key in place:
            try:
                if isinstance(node, CommentedMap) and key in (node.lc.data or {}):
                    line, column = node.lc.key(key)
                elif isinstance(node, CommentedSeq):
                    line, column = node.lc.item(key)
                elif isinstance(node[key], CommentedMap):
                    # Moved here from elsewhere in the file: what counts is where it was written.
                    line, column = node[key].lc.line, node[key].lc.col
                node = node[key]
            except (KeyError, IndexError, TypeError, AttributeError):
                break
        return f"{self.path}:{line + 1}:{column + 1}"

    def error(self, place: Place, message: str) -> SuiteError:
        """A `SuiteError` at a place."""
        return SuiteError(f"{self.where(place)}: {message}")

    def unknown(
        self, place: Place, what: str, name: str, choices: Iterable[str], option: str = ""
    ) -> SuiteError:
        """A `SuiteError` for a name that does not exist, with the nearest one that does."""
        prefix = f"{option}: " if option else ""
        return self.error(place, prefix + unknown(what, str(name), map(str, choices)))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return tuple(_plain(item) for item in value)
    for kind in (bool, int, float, str):
        # The round-trip parser's own scalar types would fail strict validation.
        if isinstance(value, kind):
            return kind(value)
    return value


def describe_error(source: YamlSource, error: ValidationError, root: type[BaseModel]) -> SuiteError:
    """The first of pydantic's complaints as one line, unknown keys with the valid ones."""
    # A misspelt key is also a missing one; the misspelling is what the user can see.
    first = min(error.errors(), key=lambda item: item["type"] != "extra_forbidden")
    place = tuple(part for part in first["loc"] if part != "[key]")
    if first["type"] == "extra_forbidden":
        fields = _fields_at(root, place[:-1])
        return source.unknown(place, "key", str(place[-1]), fields)
    if first["type"] == "missing":
        return source.error(place[:-1], f"missing key {place[-1]!r}")
    dotted = ".".join(str(part) for part in place)
    message = first["msg"].removeprefix("Value error, ")
    message = (message[:1].lower() + message[1:]).replace("valid tuple", "list")
    message = message.replace("valid dictionary", "mapping of keys to values")
    message = re.sub(r" or instance of \w+", "", message)
    message = re.sub(
        r"(tuple|dictionary) should have at least 1 item.*", "give at least one", message
    )
    given = first["input"]
    shown = f", got {given!r}" if isinstance(given, str | int | float | bool) else ""
    shown = ", got nothing" if given is None else shown
    if place[:1] == ("retain",) and isinstance(given, float | int) and given > 1:
        shown += f"; {given:g} % is {given / 100:g}"
    return source.error(place, f"{dotted}: {message}{shown}" if dotted else message)


def _fields_at(root: type[BaseModel], place: Place) -> list[str]:
    """Valid keys of the model that validated a place."""
    model: Any = root
    for part in place:
        if isinstance(model, type) and issubclass(model, BaseModel):
            info = model.model_fields.get(str(part))
            model = _model_in(info.annotation) if info else model
    return list(model.model_fields)


def _model_in(annotation: Any) -> Any:
    """The pydantic model inside Optional, tuple or Mapping annotations."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in getattr(annotation, "__args__", ()):
        model = _model_in(inner)
        if model is not None:
            return model
    return None
