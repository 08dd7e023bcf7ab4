"""Plugins of this process: classes, modules and objects that a program hands over."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from mbench.core.errors import PluginError, shown
from mbench.core.hookspecs import hookimpl
from mbench.core.interfaces import Component, Method, Scorer
from mbench.plan.components import class_code
from mbench.storage.source_code import Root


@dataclass(frozen=True)
class GivenPlugin:
    """A plugin that is registered as it is."""

    name: str
    hooks: Any
    """A module, or another object that has hooks."""
    code: Root
    """Where its source begins."""
    component: type[Component] | None = None
    """The class, where it was given alone."""


OWN = ("mbench.core.interfaces", "mbench.core.search")
"""Where the bases of components are, which are none themselves."""


def as_plugin(item: Any) -> GivenPlugin:
    """A module or an object with hooks, or a component's class without any.

    A scorer's class also offers a method of its name, on one corpus. Raises `PluginError` for
    anything else, and for a class whose source cannot be found.
    """
    if isinstance(item, ModuleType):
        if not getattr(item, "__file__", None):
            raise PluginError(f"module {item.__name__} has no source file")
        return GivenPlugin(item.__name__, item, item)
    if inspect.isclass(item):
        if not issubclass(item, Component) or item.__module__ in OWN:
            raise PluginError(
                f"plugins: {item.__name__} is no component: derive it from mbench.Scorer,"
                " Selector, MaskBuilder or Statistic"
            )
        return GivenPlugin(item.__qualname__, _OneClass(item), class_code(item)[0], item)
    if isinstance(item, Component):
        name = type(item).__name__
        raise PluginError(f"plugins: give the class {name}, not an object of it")
    module = sys.modules.get(type(item).__module__)
    if module is None or not any(name.startswith("mbench_") for name in dir(item)):
        raise PluginError(
            f"plugins: {shown(item)} is no file, module or class, and has no hook of mbench"
        )
    return GivenPlugin(type(item).__qualname__, item, class_code(type(item))[0])


def missing_methods(given: Sequence[GivenPlugin], listed: Mapping[str, Any]) -> Iterator[str]:
    """Names of the scorers given alone that no method of a suite uses, by its name or its scorer.

    Args:
        given: the plugins.
        listed: the suite's methods and candidates by name, as they were read.
    """
    used = set(listed)
    for method in listed.values():
        scorer = method.get("scorer") if isinstance(method, Mapping) else None
        name = scorer.get("name") if isinstance(scorer, Mapping) else scorer
        used |= {name} if isinstance(name, str) else set()
        use = method.get("use") if isinstance(method, Mapping) else None
        used |= {use} if isinstance(use, str) else set()
    for plugin in given:
        if plugin.component is not None and issubclass(plugin.component, Scorer):
            name = getattr(plugin.component, "name", None)
            if isinstance(name, str) and name not in used:
                yield name


@dataclass(frozen=True)
class _OneClass:
    """The hooks of a class that was given alone."""

    component: type[Component]

    @hookimpl
    def mbench_components(self) -> list[type[Component]]:
        """The class."""
        return [self.component]

    @hookimpl
    def mbench_methods(self) -> list[Method]:
        """A scorer as a method."""
        if not issubclass(self.component, Scorer) or not hasattr(self.component, "name"):
            return []
        about = (inspect.getdoc(self.component) or "").split("\n")[0]
        name = self.component.name
        return [Method(name, scorer=name, corpora=1, description=about)]
