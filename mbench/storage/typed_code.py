"""Code that no file holds: classes typed into a notebook or an interpreter.

Their source is what was typed: the statement of the class, and in turn the statements of all typed
classes and functions that its code names, with the values of the variables that it
reads. What else a cell holds does not count, so that a call in the cell may change. A value that
cannot be told from another is refused.
"""

from __future__ import annotations

import ast
import dis
import functools
import hashlib
import linecache
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import numpy as np

from mbench.core.errors import PluginError
from mbench.core.interfaces import Component
from mbench.core.parameters import plain_parameters

SESSION = "__main__"


@dataclass(frozen=True)
class TypedCode:
    """The source of one class."""

    name: str
    statements: frozenset[str]
    """What was typed, with the values of variables."""
    imports: frozenset[str]
    """Dotted names of the modules and what it takes from them."""

    @property
    def sha256(self) -> str:
        """Hash of its statements and values."""
        return hashlib.sha256("\0".join(sorted(self.statements)).encode()).hexdigest()


def is_typed(kind: type) -> bool:
    """Whether a class was typed in, whatever file the interpreter was begun with."""
    if kind.__module__ != SESSION:
        return False
    file = getattr(sys.modules[SESSION], "__file__", None)
    places = {function.__code__.co_filename for function in _functions(kind)}
    # What is read from a pipe says that its file is `<stdin>`.
    return file is None or not Path(file).is_file() or bool(places - {file})


def typed_code(kind: type) -> TypedCode:
    """The source of a class that was typed; raises `PluginError` where it cannot be found."""
    search = _Search(kind.__name__)
    search.see(kind, kind.__name__)
    return TypedCode(kind.__name__, frozenset(search.statements), frozenset(search.imports))


class _Search:
    """Follows names from one class through a session."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.statements: set[str] = set()
        self.imports: set[str] = set()
        self._seen: set[int] = set()

    def see(self, value: Any, name: str) -> None:
        """Add whatever a name stands for."""
        if id(value) in self._seen:
            return
        if isinstance(value, ModuleType):
            self.imports.add(value.__name__)
        elif isinstance(value, type | FunctionType) and value.__module__ != SESSION:
            self.imports.add(f"{value.__module__}.{value.__name__}")
        elif isinstance(value, type):
            self._seen.add(id(value))
            self._class(value)
        elif isinstance(value, FunctionType):
            self._seen.add(id(value))
            self._function(value)
        elif isinstance(value, Component):
            self.see(type(value), name)
            self.statements.add(f"{name} = {plain_parameters(value.params)}")
        elif (wrapped := getattr(value, "__wrapped__", None)) is not None:
            self.see(wrapped, name)
        else:
            self.statements.add(f"{name} = {self._text(value, name)}")

    def _class(self, kind: type) -> None:
        functions = list(_functions(kind))
        places = {function.__code__.co_filename for function in functions}
        texts = [_cell(place) for place in places] if places else list(_all_cells())
        found = {
            statement
            for text in texts
            for statement, node in _statements(text)
            if isinstance(node, ast.ClassDef) and node.name == kind.__qualname__.split(".")[0]
        }
        if not found:
            raise self._no_source(kind.__name__)
        self.statements |= found
        for function in functions:
            self._names(function)
        for name, value in vars(kind).items():
            if isinstance(value, type) and value.__module__ == SESSION:
                self.see(value, name)
            elif not name.startswith("__") and _is_value(value):
                self.see(value, f"{kind.__name__}.{name}")
        for base in kind.__bases__:
            self.see(base, base.__name__)

    def _function(self, function: FunctionType) -> None:
        code = function.__code__
        line = code.co_firstlineno
        around = [
            statement
            for statement, node in _statements(_cell(code.co_filename))
            if _first_line(node) <= line <= (node.end_lineno or line)
        ]
        if not around:
            raise self._no_source(function.__name__)
        self.statements.update(around)
        self._names(function)

    def _names(self, function: FunctionType) -> None:
        """Follow the global names that a function's code loads."""
        for name in _loaded(function.__code__):
            if name in function.__globals__:
                self.see(function.__globals__[name], name)
        defaults = (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values())
        for number, value in enumerate(defaults):
            self.see(value, f"{function.__qualname__} default {number}")

    def _text(self, value: Any, name: str) -> str:
        """A value so that another one has another text."""
        if value is None or isinstance(value, bool | int | float | complex | str | bytes):
            return repr(value)
        if isinstance(value, np.ndarray | np.generic) and not value.dtype.hasobject:
            array = np.asarray(value)
            digest = hashlib.sha256(array.tobytes()).hexdigest()
            return f"{array.dtype} {array.shape} {digest}"
        if isinstance(value, list | tuple | set | frozenset):
            texts = [self._text(item, name) for item in value]
            # The order of a set changes from one process to the next.
            ordered = sorted(texts) if isinstance(value, set | frozenset) else texts
            return f"{type(value).__name__} {ordered}"
        if isinstance(value, Mapping):
            pairs = [(self._text(k, name), self._text(v, name)) for k, v in value.items()]
            return f"{type(value).__name__} {pairs}"
        if isinstance(value, Component):
            self.see(value, name)
            return type(value).__name__
        raise PluginError(
            f"{self.name} reads {name!r} of this session, a {type(value).__name__}, whose value its"
            " source does not show: make it a field of its `Params`"
        )

    def _no_source(self, name: str) -> PluginError:
        also = "" if name == self.name else f", which {self.name} uses,"
        return PluginError(
            f"the source of {name}{also} cannot be found: write it into a file, and give that"
        )


def _functions(kind: type) -> Iterator[FunctionType]:
    """The functions that a class's body defines, those of nested classes too."""
    for value in vars(kind).values():
        if isinstance(value, staticmethod | classmethod):
            value = value.__func__
        if isinstance(value, functools.cached_property):
            value = value.func
        parts = (value.fget, value.fset) if isinstance(value, property) else (value,)
        for part in parts:
            if isinstance(part, FunctionType) and part.__module__ == SESSION:
                # Not what a library makes, e.g. `__init__` of a dataclass.
                if part.__code__.co_filename != "<string>" or not part.__name__.startswith("__"):
                    yield part
            elif isinstance(part, type) and part.__qualname__.startswith(f"{kind.__qualname__}."):
                yield from _functions(part)


_PLAIN = (bool, int, float, complex, str, bytes, list, tuple, set, frozenset, Mapping)


def _is_value(value: Any) -> bool:
    """Whether an attribute of a class is one that its code may read as a value."""
    return value is None or isinstance(value, (*_PLAIN, np.ndarray, np.generic, Component))


def _loaded(code: CodeType) -> Iterator[str]:
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            yield instruction.argval
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _loaded(constant)


def _cell(place: str) -> str:
    return "".join(linecache.getlines(place))


def _all_cells() -> Iterator[str]:
    """Of classes without a function nobody knows which: all that were typed."""
    yield from (_cell(place) for place in list(linecache.cache) if not place.endswith(".py"))


def _statements(text: str) -> Iterator[tuple[str, ast.stmt]]:
    """The statements of a cell, as Python writes them, without comments."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return  # a cell with commands of the notebook's own
    yield from ((ast.unparse(node), node) for node in tree.body)


def _first_line(node: ast.stmt) -> int:
    decorators = getattr(node, "decorator_list", [])
    return min([node.lineno, *(int(each.lineno) for each in decorators)])
