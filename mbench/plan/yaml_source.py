"""A YAML file that remembers where every key and value stands, for errors as file:line:column."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel, Tag, ValidationError

from mbench.core.errors import MbenchError, SuiteError, shortened, shown, unknown
from mbench.core.small_files import Unreadable, read_small_file
from mbench.plan.union_errors import MARKS, of_value
from mbench.plan.yaml_text import PlacedList, PlacedMap, parse, placed

MOST_BYTES = 256 * 1024
"""Of a suite file."""

MOST_KEYS = 20
"""In the name of a place."""

NAMED = {
    "models": "model",
    "corpora": "corpus",
    "methods": "method",
    "candidates": "candidate",
    "perplexity": "perplexity text",
    "tasks": "task",
}
"""Keys of a suite whose values have names that the suite gives them."""

Place = tuple[Any, ...]
"""Keys and indices from the top of the document to a value."""


@dataclass
class YamlSource:
    """A parsed file, changed in memory by command-line options whose names errors then quote."""

    path: Path
    data: PlacedMap
    changed: dict[Place, str] = field(default_factory=dict)
    """place -> the option that put it there, or the place that asked for it."""
    written: bool = True
    """False for a suite that was given as values, whose places are its keys."""

    @classmethod
    def given(cls, suite: Mapping[str, Any]) -> YamlSource:
        """A suite of Python's own values; raises `SuiteError` for what no suite can hold."""
        name = suite.get("name")
        name = name if isinstance(name, str) else "the suite that was given"
        return cls(Path(name), placed(suite, name), written=False)

    @classmethod
    def read(cls, path: Path) -> YamlSource:
        """Parse a file; raises `SuiteError` for a missing or malformed one, or a repeated key."""
        try:
            text = read_small_file(path, MOST_BYTES)
        except FileNotFoundError:
            near = sorted(str(other) for other in path.parent.glob("*.yaml") if _is_suite(other))
            hint = f" (there: {', '.join(near)})" if near else ""
            raise SuiteError(f"{path}: no such suite file{hint}") from None
        except Unreadable as error:
            raise SuiteError(f"{path}: cannot be read: {error}") from None
        data = parse(text, str(path))
        if not isinstance(data, PlacedMap):
            raise SuiteError(f"{path}:1:1: a suite is a mapping of keys to values")
        return cls(path, data)

    def plain(self) -> dict[str, Any]:
        """The data as ordinary dictionaries, tuples and scalars."""
        plain: dict[str, Any] = _plain(self.data)
        return plain

    def assign(self, assignment: str, added: Sequence[str] = ()) -> None:
        """Carry out `--set a.b.c=VALUE`, VALUE in YAML; `added` are methods yet to be listed."""
        target, separator, text = assignment.partition("=")
        option = f"--set {shortened(assignment)}"
        parts = target.split(".")
        if not separator or not target:
            raise SuiteError(f"--set takes KEY.KEY=VALUE, got {shown(assignment)}")
        if len(parts) > MOST_KEYS:
            raise SuiteError(f"{option}: nothing in a suite has more than {MOST_KEYS} keys")
        place = self._listed(tuple(self._keys(parts)), option, added)
        self.replace(place, parse(text, f"{option}: the value"), option)

    def _listed(self, place: Place, option: str, added: Sequence[str]) -> Place:
        """The place, where it is inside something that has a name in the suite.

        A mistyped name would otherwise silently become something new. What is listed as a method
        may be called a candidate, as which `--method` leaves it, and the other way round.
        """
        if place[0] not in NAMED or len(place) < 3 or place[1] in (*self.section(place[0]), *added):
            return place
        section, name, *inside = place
        other = {"methods": "candidates", "candidates": "methods"}.get(section, "")
        if name in self.section(other):
            return (other, name, *inside)
        problem = unknown(NAMED[section], str(name), self.section(section))
        whole = f"to add one, give it as a whole: --set '{section}.{shortened(str(name))}={{...}}'"
        raise SuiteError(f"{option}: {problem}; {whole}")

    def section(self, name: str) -> dict[str, Any]:
        """What the suite lists under a key by name; nothing where that is no mapping."""
        listed = self.data.get(name)
        return listed if isinstance(listed, dict) else {}

    def move(self, old: Place, new: Place) -> None:
        """Put what stands in one place to another, with the options that changed it."""
        above: Any = self.data
        for key in old[:-1]:
            above = above[key]
        value = above.pop(old[-1])
        length = len(old)
        self.changed = {
            (*new, *place[length:]) if place[:length] == old else place: option
            for place, option in self.changed.items()
        }
        above = self.data
        for key in new[:-1]:
            above = above[key]
        above[new[-1]] = value

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
            is_index = isinstance(node, list) and re.fullmatch("[0-9]{1,9}", key)
            part = int(key) if is_index else key
            yield part
            try:
                node = node[part]
            except (KeyError, IndexError, TypeError):
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
                raise SuiteError(f"{option}: no {shown(key)} to set anything in") from None
        try:
            node[place[-1]] = value
        except (IndexError, TypeError):
            raise SuiteError(f"{option}: cannot set {shown(place[-1])} there") from None
        self.changed[place] = option

    def add(self, place: Place, value: Any, cause: Place) -> None:
        """Put a value at a place whose errors name another one, which asked for it."""
        above: Any = self.data
        for key in place[:-1]:
            above = above[key]
        above[place[-1]] = value
        self.changed[place] = self.where(cause)

    def where(self, place: Place) -> str:
        """The option that set a place; else `file:line:column`, and what options changed in it."""
        for length in range(len(place), 0, -1):
            if place[:length] in self.changed:
                return self.changed[place[:length]]
        if not self.written:
            return ": ".join(filter(None, (str(self.path), ".".join(map(str, place))))) + (
                self._changed_in(place)
            )
        node: Any = self.data
        line, column = 0, 0
        for key in place:
            try:
                known = isinstance(node, PlacedMap) and key in node.positions
                if known or isinstance(node, PlacedList):
                    line, column = node.positions[key]
                elif isinstance(node[key], PlacedMap):
                    # Moved here from elsewhere in the file: what counts is where it was written.
                    line, column = node[key].position
                node = node[key]
            except (KeyError, IndexError, TypeError, AttributeError):
                break
        return f"{self.path}:{line + 1}:{column + 1}{self._changed_in(place)}"

    def _changed_in(self, place: Place) -> str:
        """The options that put something within a place, which may be what is wrong there."""
        within = [option for each, option in self.changed.items() if each[: len(place)] == place]
        # What the suite itself asked for is told by the place that asked.
        options = [o for o in dict.fromkeys(within) if not o.startswith(str(self.path))]
        return f", changed by {', '.join(options)}" if place and options else ""

    def error(self, place: Place, message: str) -> SuiteError:
        """A `SuiteError` at a place."""
        return SuiteError(f"{self.where(place)}: {message}")

    @contextlib.contextmanager
    def naming(self, place: Place) -> Iterator[None]:
        """Put a place in front of errors that name none."""
        try:
            yield
        except SuiteError:
            raise
        except MbenchError as error:
            raise type(error)(f"{self.where(place)}: {error}") from error

    def unknown(
        self, place: Place, what: str, name: str, choices: Iterable[str], option: str = ""
    ) -> SuiteError:
        """A `SuiteError` for a name that does not exist, with the nearest one that does.

        `option` is where the name stands, if not at the place.
        """
        problem = unknown(what, str(name), map(str, choices))
        return SuiteError(f"{option}: {problem}") if option else self.error(place, problem)


def _is_suite(path: Path) -> bool:
    """Whether a file is offered as a suite, correct or not: it is not hidden and has models."""
    if path.name.startswith("."):
        return False
    try:
        text = read_small_file(path, MOST_BYTES)
    except (OSError, Unreadable):
        return False
    return re.search(r"^models\s*:", text, re.MULTILINE) is not None


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return tuple(map(_plain, value)) if isinstance(value, list | tuple) else value


def describe_error(source: YamlSource, error: ValidationError, root: type[BaseModel]) -> SuiteError:
    """The first of pydantic's complaints as one line, unknown keys with the valid ones."""
    # A misspelt key is also a missing one; the misspelling is what the user can see.
    first = min(error.errors(), key=lambda item: item["type"] != "extra_forbidden")
    place = tuple(part for part in first["loc"] if part not in MARKS)
    if first["type"] == "extra_forbidden":
        fields = _fields_at(root, first["loc"][:-1])
        return source.unknown(place, "key", str(place[-1]), fields)
    if first["type"] == "missing":
        return source.error(place[:-1], f"missing key {place[-1]!r}")
    place, first, expected = of_value(error, first, source.plain())
    dotted = shortened(".".join(str(part) for part in place))
    if not dotted.isprintable():
        dotted = repr(dotted)
    message = expected or first["msg"].removeprefix("Value error, ")
    message = (message[:1].lower() + message[1:]).replace("valid tuple", "list")
    message = message.replace("valid dictionary", "mapping of keys to values")
    message = re.sub(r" or instance of \w+", "", message)
    message = re.sub(
        r"(tuple|dictionary) should have at least 1 item.*", "give at least one", message
    )
    message = re.sub(r"^tuple should|^dictionary should", "it should", message)
    given = first["input"]
    got = f", got {shown(given)}" if isinstance(given, str | int | float | bool) else ""
    got = ", got nothing" if given is None else got
    if message.endswith("should be a list") and isinstance(given, str | int | float):
        got += f"; a list of one is [{shown(given)}]"
    ratio = place[:1] == ("retain",) and len(place) > 1
    if ratio and isinstance(given, float | int) and 1 < given < 100:
        got += f"; {given:g} % is {given / 100:g}"
    return source.error(place, f"{dotted}: {message}{got}" if dotted else message)


def _fields_at(root: type[BaseModel], place: Place) -> list[str]:
    """Valid keys of the model that validated a place."""
    model: Any = root
    named = False
    for part in place:
        if named:  # a key of a mapping, or a place in a list, is no field
            named = False
        elif isinstance(model, type) and issubclass(model, BaseModel):
            info = model.model_fields.get(str(part))
            models = _models_in(info.annotation) if info else {}
            model = models.get("", models or None)
            named = info is not None and _holds_many(info.annotation)
        elif isinstance(model, dict):  # of several kinds: a mark says which
            model = model.get(part, model)
    return list(getattr(model, "model_fields", ()))


def _holds_many(annotation: Any) -> bool:
    """Whether a field is a mapping or a list, optional or not."""
    origin = get_origin(annotation)
    if origin in (Mapping, tuple):
        return True
    return origin is not None and any(map(_holds_many, get_args(annotation)))


def _models_in(annotation: Any, mark: str = "") -> dict[str, type[BaseModel]]:
    """The pydantic models inside Optional, tuple or Mapping annotations, by their mark, if any."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return {mark: annotation}
    marks = [each.tag for each in getattr(annotation, "__metadata__", ()) if isinstance(each, Tag)]
    found: dict[str, type[BaseModel]] = {}
    for inner in getattr(annotation, "__args__", ()):
        found = _models_in(inner, marks[0] if marks else mark) | found
    return found
