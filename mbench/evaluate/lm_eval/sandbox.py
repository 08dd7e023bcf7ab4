"""Templates of tasks see their documents and nothing else of this process."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

import lm_eval.utils
from jinja2 import BaseLoader, StrictUndefined, Template, nodes
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from mbench.core.replaced import replaced

LONGEST = 10_000_000
"""Characters of the longest text, and bits of the largest number, that a product may give."""


class _Templates(ImmutableSandboxedEnvironment):
    """Renders as lm-eval's environment does, but refuses to leave the document."""

    intercepted_binops = frozenset({"*", "**"})

    def __init__(self) -> None:
        super().__init__(loader=BaseLoader(), undefined=StrictUndefined, keep_trailing_newline=True)
        self._compiled: dict[str | nodes.Template, Template] = {}
        self.filters["regex_replace"] = lm_eval.utils.regex_replace

    def from_string(
        self,
        source: str | nodes.Template,
        globals: MutableMapping[str, Any] | None = None,
        template_class: type[Template] | None = None,
    ) -> Template:
        """Compile a template once; lm-eval does it for every document."""
        if source not in self._compiled:
            self._compiled[source] = super().from_string(source, globals, template_class)
        return self._compiled[source]

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Products and powers, unless they would fill the memory."""
        sizes = [len(each) if hasattr(each, "__len__") else abs(each) for each in (left, right)]
        bits = sizes[1] * max(int(sizes[0]).bit_length(), 1) if operator == "**" else 0
        long = operator == "*" and any(hasattr(each, "__len__") for each in (left, right))
        if bits > LONGEST or (long and sizes[0] * sizes[1] > LONGEST):
            raise SecurityError(f"the result of {operator} is too long")
        return super().call_binop(context, operator, left, right)


TEMPLATES = _Templates()


@contextmanager
def confined() -> Iterator[None]:
    """Let lm-eval render templates in a sandbox, with equal results.

    A template that reaches for Python's internals raises jinja2's `SecurityError`.
    """
    with replaced(lm_eval.utils, "env", TEMPLATES):
        yield
