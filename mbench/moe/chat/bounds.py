"""A sandbox for templates of others: they see what they are given, and do not grow without end."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from typing import Any

from jinja2 import Template, nodes, pass_environment
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

LONGEST = 10_000_000
"""Characters of the longest text, values of the longest list, and bits of the largest number."""

MOST_STEPS = 200_000
"""Rounds of loops in one rendering; a call counts as `CALL` of them."""

CALL = 20
"""About the time that a call takes, in rounds of a loop."""

_NARROWED = ("batch", "center", "format", "indent", "slice", "tojson", "wordwrap")
_WIDE = re.compile(r"[0-9]{8,}")
_WIDTH_GIVEN = re.compile(r":[^{}]*\{|%[^a-zA-Z%]*\*")


def _concatenated(parts: Iterable[str]) -> str:
    kept, size = [], 0
    for part in parts:
        kept.append(part)
        size += len(part)
        if size > LONGEST:
            raise SecurityError("the text is too long")
    return "".join(kept)


class _Template(Template):
    def render(self, *args: Any, **values: Any) -> str:
        self.environment.steps = 0  # type: ignore[attr-defined]
        return super().render(*args, **values)


class _Bounded(NodeTransformer):
    """Lets loops be counted and joined text be measured."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        """Count the rounds."""
        self.generic_visit(node)
        node.iter = _filtered(node.iter, "_counted")
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        """Measure before joining."""
        self.generic_visit(node)
        return _filtered(nodes.List(node.nodes, lineno=node.lineno), "_joined")


def _filtered(node: nodes.Node, name: str) -> nodes.Filter:
    assert isinstance(node, nodes.Expr)
    made = nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)
    made.environment = node.environment
    return made


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """Renders as the environment that it is made like, but refuses to leave the data, or to grow.

    What is refused raises jinja2's `SecurityError`.
    """

    intercepted_binops = frozenset({"*", "**", "+", "%"})
    template_class = _Template
    concat = staticmethod(_concatenated)

    def __init__(self, **options: Any) -> None:
        """As any environment of jinja2."""
        super().__init__(**options)
        self.steps = 0
        self._bounds: dict[str, Any] = {}

    def from_string(
        self,
        source: str | nodes.Template,
        globals: MutableMapping[str, Any] | None = None,
        template_class: type[Template] | None = None,
    ) -> Template:
        """Compile a template; filters that were replaced by then are bounded, too."""
        for name in _NARROWED:
            self._bound(name, _narrow)
        self._bound("replace", _sparing)
        self._bound("join", _joining)
        self.filters |= {"_counted": _counted, "_joined": _joined}
        return super().from_string(source, globals, template_class)

    def _bound(self, name: str, bounded: Callable[..., Any]) -> None:
        """Once for each filter of a name."""
        if self.filters[name] is not self._bounds.get(name):
            self._bounds[name] = self.filters[name] = bounded(self.filters[name])

    def _generate(self, source: nodes.Template, *args: Any, **options: Any) -> str:
        return super()._generate(_Bounded().visit(source), *args, **options)

    def step(self, cost: int = 1) -> None:
        """Count a round of a loop, or as many; raises `SecurityError` where there are too many."""
        self.steps += cost
        if self.steps > MOST_STEPS:
            raise SecurityError(f"the template takes more than {MOST_STEPS} steps")

    def call(__self, __context: Context, __obj: Any, *args: Any, **values: Any) -> Any:
        """Calls, unless there are too many, or one makes a text too long."""
        __self.step(CALL)
        owner = getattr(__obj, "__self__", None)
        if isinstance(owner, str | bytes):
            _refuse_long(__obj.__name__, owner, (*args, *values.values()))
        return super().call(__context, __obj, *args, **values)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """The formatting method of a text, unless its result would be too long."""
        wrapped = super().wrap_str_format(value)
        if wrapped is None:
            return None
        pattern, formatted = str(value.__self__), wrapped

        @functools.wraps(wrapped)
        def narrow(*args: Any, **values: Any) -> str:
            _refuse_wide(pattern, (*args, *values.values()))
            return formatted(*args, **values)

        return narrow

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Sums, products and powers, unless they would fill the memory."""
        if operator == "%":
            if isinstance(left, str):
                _refuse_wide(left, right if isinstance(right, tuple) else (right,))
            return super().call_binop(context, operator, left, right)
        listed = [each for each in (left, right) if hasattr(each, "__len__")]
        sizes = [len(each) if hasattr(each, "__len__") else abs(each) for each in (left, right)]
        bits = [max(int(size).bit_length(), 1) if size == size else 1 for size in sizes]
        if operator == "**":
            size = sizes[1] * bits[0]
        elif operator == "+":
            size = sum(sizes) if listed else max(bits)
        else:
            size = sizes[0] * sizes[1] if listed else sum(bits)
        if size > LONGEST:
            raise SecurityError(f"the result of {operator} is too long")
        return super().call_binop(context, operator, left, right)


def _refuse_long(method: str, owner: str | bytes, given: Iterable[Any]) -> None:
    """Raise `SecurityError` for a method of a text whose result would fill the memory."""
    given = tuple(given)
    if method in ("format", "format_map"):
        _refuse_wide(str(owner), given)
        return
    size = len(owner) + max((abs(each) for each in given if isinstance(each, int)), default=0)
    if method in ("replace", "translate"):
        texts = (each for each in given if isinstance(each, str | bytes))
        size = (len(owner) + 1) * max(map(len, texts), default=1)
    if method == "join":
        parts = given[0] if given and isinstance(given[0], list | tuple) else ()
        size = sum(len(part) + len(owner) for part in parts if isinstance(part, str | bytes))
    if size > LONGEST:
        raise SecurityError(f"the result of {method} is too long")


def _refuse_wide(pattern: str, given: Iterable[Any]) -> None:
    wide = any(isinstance(each, int) and abs(each) > LONGEST for each in given)
    if _WIDE.search(pattern) or (wide and _WIDTH_GIVEN.search(pattern)):
        raise SecurityError("the result of a format is too long")


def _narrow(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def narrow(*args: Any, **values: Any) -> Any:
        given = [*args, *values.values()]
        for pattern in (each for each in given if isinstance(each, str)):
            if function.__name__ == "do_format":
                _refuse_wide(pattern, given)
        if function.__name__ != "do_format" and any(
            isinstance(each, int) and abs(each) > LONGEST // 100 for each in given
        ):
            raise SecurityError(
                f"the result of {function.__name__.removeprefix('do_')} is too long"
            )
        return function(*args, **values)

    return narrow


def _sparing(replace: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(replace)
    def sparing(context: Any, text: Any, old: Any, new: Any, count: int | None = None) -> Any:
        _refuse_long("replace", str(text), (str(new),))
        return replace(context, text, old, new, count)

    return sparing


def _joining(join: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(join)
    def joining(context: Any, value: Iterable[Any], d: str = "", attribute: Any = None) -> Any:
        parts = list(value)
        _refuse_long("join", str(d), (parts,))
        return join(context, parts, d, attribute)

    return joining


@pass_environment
def _counted(environment: BoundedEnvironment, values: Iterable[Any]) -> Iterator[Any]:
    for value in values:
        environment.step()
        yield value


def _joined(parts: list[Any]) -> str:
    return _concatenated(map(str, parts))
