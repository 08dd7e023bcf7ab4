"""What identifies a component in keys: its class, its parameters, and where its code begins."""

from __future__ import annotations

import sys
from types import ModuleType

from mbench.core import interfaces
from mbench.core.errors import PluginError
from mbench.core.interfaces import Component
from mbench.plan.keys import ComponentKey
from mbench.storage.source_code import Source


def component_key(component: Component, source: Source) -> ComponentKey:
    """What identifies a component in keys.

    Raises `PluginError` where its name, parameters and source do not say what it does.
    """
    kind = type(component)
    unseen = sorted(vars(component).keys() - {"params"})
    if unseen:
        raise PluginError(
            f"{component.name!r} holds {', '.join(unseen)} beside its parameters, so that"
            " different ones could not be told apart: make it a field of its `Params`"
        )
    return ComponentKey(
        name=component.name,
        class_name=kind.__qualname__,
        params=component.params.model_dump(mode="json"),
        source=source.sha256,
        distributions=source.distributions,
    )


def class_modules(kind: type[Component]) -> list[ModuleType]:
    """The modules of a component's class and of the classes that it is made of.

    Raises `PluginError` for a class that is defined inside a function, whose values its source
    does not show.
    """
    if "<locals>" in kind.__qualname__:
        file = getattr(sys.modules.get(kind.__module__), "__file__", kind.__module__)
        raise PluginError(
            f"{kind.__name__} in {file} is defined inside a function, whose values its source does"
            " not show: define it at the top of a module, with `Params`"
        )
    names = dict.fromkeys(base.__module__ for base in kind.__mro__)
    return [
        sys.modules[name]
        for name in names
        if name != interfaces.__name__ and name.partition(".")[0] not in sys.stdlib_module_names
    ]
