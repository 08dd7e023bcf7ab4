"""What identifies a component in keys: its class, its parameters, and where its code begins."""

from __future__ import annotations

import operator
import sys

from mbench.core import interfaces, search
from mbench.core.errors import PluginError
from mbench.core.interfaces import Component
from mbench.core.parameters import plain_parameters
from mbench.plan.keys import ComponentKey
from mbench.storage.source_code import Root, Source
from mbench.storage.typed_code import is_typed, typed_code

CONTRACT = (interfaces.__name__, search.__name__)
"""Modules of base classes that do nothing of their own."""


def component_key(component: Component, source: Source) -> ComponentKey:
    """What identifies a component in keys.

    Raises `PluginError` where its name, parameters and source do not say what it does.
    """
    kind = type(component)
    if kind.identity is not Component.identity:
        raise PluginError(f"{component.name!r} has an `identity` of its own: remove it")
    unseen = sorted(vars(component).keys() - {"params"})
    if unseen:
        raise PluginError(
            f"{component.name!r} holds {', '.join(unseen)} beside its parameters, so that"
            " different ones could not be told apart: make it a field of its `Params`"
        )
    try:
        params = plain_parameters(component.params)
    except ValueError as error:
        raise PluginError(
            f"{component.name!r}: its parameters cannot be written: {error}"
        ) from error
    return ComponentKey(
        name=component.name,
        class_name=kind.__qualname__,
        params=params,
        source=source.sha256,
        distributions=source.distributions,
    )


def class_code(kind: type) -> list[Root]:
    """Where the code of a class, and of the classes that it is made of, begins.

    Raises `PluginError` for a class that is defined inside a function, whose values its source
    does not show.
    """
    if "<locals>" in kind.__qualname__:
        file = getattr(sys.modules.get(kind.__module__), "__file__", kind.__module__)
        raise PluginError(
            f"{kind.__name__} in {file} is defined inside a function, whose values its source does"
            " not show: define it at the top of a module, with `Params`"
        )
    roots: list[Root] = []
    for base in kind.__mro__:
        name = base.__module__
        of_python = name.partition(".")[0] in sys.stdlib_module_names
        # What `type()` makes has the module `abc`, and a plugin's own file may be called anything.
        if name in CONTRACT or (of_python and not issubclass(base, Component)):
            continue
        module = sys.modules.get(name)
        if is_typed(base):
            roots.append(typed_code(base))
            continue
        if module is None or not getattr(module, "__file__", None):
            raise PluginError(f"{base.__name__}: its module {name} has no source file")
        try:
            found = operator.attrgetter(base.__qualname__)(module)
        except AttributeError:
            raise PluginError(
                f"the source of {base.__name__} is not in its module {name}: write it as a class"
                " at the top of a file"
            ) from None
        if found is not base:
            raise PluginError(
                f"{module.__file__} defines two classes {base.__qualname__}: rename one"
            )
        roots.append(module)
    return list(dict.fromkeys(roots))
