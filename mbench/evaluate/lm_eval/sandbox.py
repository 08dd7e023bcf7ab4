"""Templates of tasks see their documents and nothing else of this process."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

import lm_eval.utils
from jinja2 import BaseLoader, StrictUndefined, Template, nodes

from mbench.core.replaced import replaced
from mbench.moe.chat.bounds import BoundedEnvironment


class _Templates(BoundedEnvironment):
    """Renders as lm-eval's environment does."""

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


TEMPLATES = _Templates()


@contextmanager
def confined() -> Iterator[None]:
    """Let lm-eval render templates in a sandbox, with equal results.

    A template that reaches for Python's internals raises jinja2's `SecurityError`.
    """
    with replaced(lm_eval.utils, "env", TEMPLATES):
        yield
