"""Loads plugins, checks what they offer, and goes on without those that are broken."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pluggy

from mbench.core import basics, hookspecs, interfaces
from mbench.core.errors import PluginError, SuiteError, caught, did_you_mean
from mbench.core.interfaces import Component, Method
from mbench.core.parameters import Parameters
from mbench.core.plugin_code import plugin_code
from mbench.plan.given_plugins import GivenPlugin
from mbench.plan.registry import KINDS, Origin, PluginFailure, Registry
from mbench.storage.distributions import name_and_version
from mbench.storage.source_code import Root, imported_names


def load_registry(files: Sequence[Path] = (), given: Sequence[GivenPlugin] = ()) -> Registry:
    """Load the built-in parts, every entry point of the group `mbench`, and single files.

    A plugin that cannot be loaded is among the registry's failures. Raises `SuiteError` for a file
    that is not there: it was mistyped; and `PluginError` for what is wrong with one of `given`.
    """
    for path in files:
        if not path.is_file():
            beside = sorted(str(other) for other in path.parent.glob("*.py"))
            raise SuiteError(f"--plugin {path}: no such file{did_you_mean(str(path), beside)}")
    registry = Registry()
    _add(registry, basics, "mbench", f"mbench {_version('mbench')}")
    for entry_point in importlib.metadata.entry_points(group=hookspecs.PROJECT):
        distribution = entry_point.dist
        source = " ".join(name_and_version(distribution)) if distribution else "unknown"
        _attempt(registry, entry_point.name, source, entry_point.load)
    for path in files:
        registry.files.append(str(path))
        _attempt(registry, str(path), str(path), partial(_import_file, path))
    for plugin in given:
        registry.given.append(plugin.name)
        _add(registry, plugin.hooks, plugin.name, plugin.name, plugin.code)
    return registry


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _attempt(registry: Registry, name: str, source: str, load: Callable[[], ModuleType]) -> None:
    """Load and register one plugin; whatever goes wrong costs this plugin and no other."""
    try:
        with _unpatched(registry), plugin_code("", loading=True):
            module = load()
        _add(registry, module, name, source)
    # What it offers may be of any kind, too.
    except Exception as error:
        file = Path(name) if name in registry.files else None
        registry.failures.append(PluginFailure(name, caught(error).strip(), file))


@contextlib.contextmanager
def _unpatched(registry: Registry) -> Iterator[None]:
    """Put back what a plugin changes of mbench's classes, or of those that others registered.

    Raises `PluginError` for it.
    """
    known = [item for part in (interfaces, basics) for item in vars(part).values()]
    known += [item for table in registry.components.values() for item in table.values()]
    classes = [item for item in known if inspect.isclass(item) and issubclass(item, Component)]
    before = {each: dict(vars(each)) for each in classes}
    patched = []
    try:
        yield
    finally:
        for each, attributes in before.items():
            for name in attributes.keys() | vars(each).keys():
                old, new = attributes.get(name), vars(each).get(name)
                if old is not new:
                    patched.append(f"{each.__name__}.{name}")
                    if name in attributes:
                        setattr(each, name, old)
                    else:
                        delattr(each, name)
    if patched:
        raise PluginError(f"it changes {patched[0]}, which all methods share: derive from it")


def _import_file(path: Path) -> ModuleType:
    """A single file as a module, which may import the files beside it."""
    name = "mbench_plugin_" + hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise PluginError(f"not a Python file: {path}")
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        # At the end: what is installed goes before files that happen to bear its name.
        sys.path.append(folder)
        importlib.invalidate_caches()
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and pickling look a class's module up here.
    sys.modules[name] = module
    spec.loader.exec_module(module)
    _refuse_foreign_siblings(path)
    return module


def _refuse_foreign_siblings(path: Path) -> None:
    """Python knows one module of a name: files beside two plugins must not bear the same one."""
    files = {file.stem: file for file in path.resolve().parent.glob("*.py")}
    seen: set[str] = set()
    pending = [path.resolve().stem]
    while pending:
        name = pending.pop()
        if name in seen or name not in files:
            continue
        seen.add(name)
        pending += imported_names(files[name])
        origin = getattr(sys.modules.get(name), "__file__", None)
        if name != path.resolve().stem and origin and Path(origin).resolve() != files[name]:
            raise PluginError(
                f"imports {name!r}, which lies beside it, but {origin} is loaded under this name:"
                " rename the file"
            )


def _add(
    registry: Registry, hooks: Any, plugin: str, source: str, code: Root | None = None
) -> None:
    """Ask one plugin for all it offers, then register it; an error registers nothing of it.

    `hooks` is a module, or an object whose source is `code`.

    Raises `PluginError` saying what is wrong with it.
    """
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    try:
        manager.register(hooks, plugin)
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        raise PluginError(" ".join(str(error).split())) from error
    _check_marks(manager, hooks)
    offers = _offers(manager)
    directories = [Path(path) for path in _listed(manager, "mbench_task_directories")]
    for directory in directories:
        if not directory.is_dir():
            raise PluginError(f"mbench_task_directories names {directory}, which is no folder")
    tables: dict[str, dict[str, Any]] = {
        **registry.components,
        "method": registry.methods,
        "corpus": registry.corpora,
        "model": registry.models,
    }
    # Registering a statistic only lists it: no suite names one, and each scorer has its own. So
    # two of one name are no clash.
    offers = [
        (
            kind,
            f"{name} ({plugin})" if kind == "statistic" and name in tables[kind] else name,
            value,
        )
        for kind, name, value in offers
    ]
    names = [offer[:2] for offer in offers]
    for kind, name in names:
        if name in tables[kind]:
            first = registry.origins[kind, name].plugin
            raise PluginError(f"{kind} {name!r} is already registered by {first}: rename yours")
        if names.count((kind, name)) > 1:
            raise PluginError(f"registers two of {kind} {name!r}")
    origin = Origin(plugin, source, hooks if code is None else code)
    for kind, name, value in offers:
        tables[kind][name] = value
        registry.origins[kind, name] = origin
    registry.task_directories.extend(directories)
    if manager.hook.mbench_panels.get_hookimpls():
        registry.panels.append((plugin, manager.hook.mbench_panels))


def _offers(manager: pluggy.PluginManager) -> list[tuple[str, str, Any]]:
    """(kind, name, value) of all that has a name; raises `PluginError` for what is none of it."""
    offers = [(_kind(item), item.name, item) for item in _listed(manager, "mbench_components")]
    for method in _listed(manager, "mbench_methods"):
        if not isinstance(method, Method):
            raise PluginError(f"mbench_methods returned {method!r}, which is no mbench.Method")
        number = method.corpora
        if number is not None and (type(number) is not int or number < 0):
            raise PluginError(
                f"method {method.name!r}: its `corpora` is {number!r}; valid: None, or a number"
                " from 0"
            )
        offers.append(("method", method.name, method))
    offers += [("corpus", name, call) for name, call in _named(manager, "mbench_corpora")]
    offers += [("model", name, Path(path)) for name, path in _named(manager, "mbench_models")]
    return offers


def _check_marks(manager: pluggy.PluginManager, module: Any) -> None:
    """Raise `PluginError` for a hook without its mark, which pluggy would ignore silently."""
    callers = manager.get_hookcallers(module) or []
    marked = {caller.name for caller in callers}
    known = {name for name in vars(hookspecs) if name.startswith("mbench_")}
    unmarked = sorted(name for name in known - marked if callable(getattr(module, name, None)))
    if unmarked:
        raise PluginError(f"{unmarked[0]} lacks @mbench.hookimpl")
    if not marked:
        raise PluginError("it implements no mbench hook (is @mbench.hookimpl missing?)")


def _answers(manager: pluggy.PluginManager, hook: str) -> list[Any]:
    caller = getattr(manager.hook, hook)
    if not caller.get_hookimpls():
        return []
    with plugin_code(hook):
        answers: list[Any] = caller()
    return answers


def _listed(manager: pluggy.PluginManager, hook: str) -> list[Any]:
    """All items that a hook's implementations list."""
    items: list[Any] = []
    for answer in _answers(manager, hook):
        if isinstance(answer, str) or not isinstance(answer, Iterable):
            raise PluginError(f"{hook} must return a list, got {answer!r}")
        if type(answer) in (list, tuple):
            items += answer
        else:  # whatever runs where a plugin's own kind of list is gone through
            with plugin_code(hook):
                items += answer
    return items


def _named(manager: pluggy.PluginManager, hook: str) -> list[tuple[str, Any]]:
    """All names and what they stand for that a hook's implementations give."""
    pairs: list[tuple[str, Any]] = []
    for answer in _answers(manager, hook):
        if not isinstance(answer, Mapping):
            raise PluginError(f"{hook} must return a mapping of names, got {answer!r}")
        pairs += answer.items()
    return pairs


def _kind(item: Any) -> str:
    """The kind of component a registered class is; raises `PluginError` if it is none."""
    for kind, base in KINDS.items():
        if inspect.isclass(item) and issubclass(item, base):
            if inspect.isabstract(item):
                missing = ", ".join(sorted(item.__abstractmethods__))
                raise PluginError(f"{item.__name__} does not implement {missing}")
            if not isinstance(getattr(item, "name", None), str):
                raise PluginError(f"{item.__name__} has no name")
            if not (inspect.isclass(item.Params) and issubclass(item.Params, Parameters)):
                raise PluginError(
                    f"{kind} {item.name!r}: its `Params` must be a subclass of mbench.Parameters"
                )
            layers = getattr(item, "layers", None)
            if kind == "builder" and layers not in ("equal", "any"):
                raise PluginError(
                    f"{kind} {item.name!r}: its `layers` is {layers!r}; valid: 'equal', 'any'"
                )
            return kind
    raise PluginError(f"{item!r} is not a Scorer, Selector, MaskBuilder or Statistic")
