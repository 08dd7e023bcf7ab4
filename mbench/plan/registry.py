"""What the plugins of this process offer, by name, and where every name came from."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mbench.core.errors import SuiteError, unknown
from mbench.core.interfaces import (
    Component,
    MaskBuilder,
    Method,
    Scorer,
    Selector,
    Statistic,
)
from mbench.plan.components import class_code
from mbench.storage.source_code import Root

KINDS: dict[str, type[Component]] = {
    "scorer": Scorer,
    "selector": Selector,
    "builder": MaskBuilder,
    "statistic": Statistic,
}


@dataclass(frozen=True)
class Origin:
    """Where a plugin came from."""

    plugin: str
    distribution: str
    """Name and version of the installed package, or the path of a single file."""
    code: Root = field(repr=False)
    """Where the source of what registered it begins."""


@dataclass(frozen=True)
class PluginFailure:
    """A plugin that could not be used, and why."""

    plugin: str
    reason: str
    file: Path | None = None
    """Its source, where it is a single file."""

    def names(self, name: str) -> bool:
        """Whether its file has this name in quotes, so that it may offer a method of that name."""
        if self.file is None:
            return False
        try:
            text = self.file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            return False
        return f'"{name}"' in text or f"'{name}'" in text


@dataclass
class Registry:
    """Everything that the plugins of this process offer, by name."""

    components: dict[str, dict[str, type[Component]]] = field(
        default_factory=lambda: {kind: {} for kind in KINDS}
    )
    methods: dict[str, Method] = field(default_factory=dict)
    corpora: dict[str, Callable[[str], list[str]]] = field(default_factory=dict)
    models: dict[str, Path] = field(default_factory=dict)
    task_directories: list[Path] = field(default_factory=list)
    panels: list[tuple[str, Callable[..., Any]]] = field(default_factory=list)
    """(plugin, its `mbench_panels`), called when a report is made."""
    origins: dict[tuple[str, str], Origin] = field(default_factory=dict)
    """(kind or "method", name) -> origin."""
    failures: list[PluginFailure] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    """Single files, which the user asked for by name."""
    given: list[str] = field(default_factory=list)
    """Plugins of this process, which no other can load."""

    def component(self, kind: str, name: str) -> type[Component]:
        """Return a component class; raises `SuiteError` naming the choices."""
        if name not in self.components[kind]:
            raise SuiteError(unknown(kind, name, self.components[kind]) + self.hint())
        return self.components[kind][name]

    def failed(self) -> str:
        """Which plugins could not be loaded, and why."""
        return "; ".join(f"plugin {f.plugin} failed to load: {f.reason}" for f in self.failures)

    def hint(self) -> str:
        """The end of an error about a name that no plugin offers."""
        return (
            f" ({self.failed()})" if self.failures else "; one of your own needs --plugin FILE.py"
        )

    def code(self, kind: str, component: Component) -> list[Root]:
        """Where a component's code begins: its class, and the plugin that registered it.

        Raises `PluginError` for a class whose source does not show all that it does.
        """
        registered_by = self.origins[kind, component.name].code
        return [registered_by, *class_code(type(component))]

    def refuse_given(self, elsewhere: str) -> None:
        """Raise `SuiteError` for plugins of this process alone; `elsewhere` is who needs them."""
        if self.given:
            raise SuiteError(
                f"plugin {self.given[0]} exists in this process alone, where no {elsewhere} can"
                " load it: give it as a file or a package"
            )

    @property
    def rejected_files(self) -> list[PluginFailure]:
        """What went wrong with files that the user asked for by name."""
        return [failure for failure in self.failures if failure.plugin in self.files]

    def describe(self, kind: str, name: str) -> str:
        """One line on what a name stands for."""
        if kind == "method":
            return self.methods[name].description
        if kind in self.components:
            return (inspect.getdoc(self.components[kind][name]) or "").split("\n")[0]
        return ""
