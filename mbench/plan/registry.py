"""Finds plugins, survives broken ones, and knows where every name came from."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pluggy

from mbench.core import basics, hookspecs
from mbench.core.errors import SuiteError, unknown
from mbench.core.interfaces import Component, MaskBuilder, Method, Scorer, Selector, Statistic

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
    source_hash: str
    """See `source_hash`: a changed method never meets its old masks."""


@dataclass(frozen=True)
class PluginFailure:
    """A plugin, or one name of it, that could not be used, and why."""

    plugin: str
    reason: str


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
    files: set[str] = field(default_factory=set)
    """Single files, which the user asked for by name."""

    def component(self, kind: str, name: str) -> type[Component]:
        """Return a component class; raises `SuiteError` naming the choices."""
        found: type[Component] = _lookup(self, self.components[kind], kind, name)
        return found

    def method(self, name: str) -> Method:
        """Return a ready-made method; raises `SuiteError` naming the choices."""
        found: Method = _lookup(self, self.methods, "method", name)
        return found

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


def _lookup(registry: Registry, table: Mapping[str, Any], kind: str, name: str) -> Any:
    if name not in table:
        broken = "; ".join(f"{f.plugin} failed to load: {f.reason}" for f in registry.failures)
        hint = f" ({broken})" if broken else "; one of your own needs --plugin FILE.py"
        raise SuiteError(unknown(kind, name, table) + hint)
    return table[name]


def load_registry(files: Sequence[Path] = ()) -> Registry:
    """Load the built-in parts, every entry point of the group `mbench`, and single files."""
    registry = Registry()
    _add(registry, basics, "mbench", f"mbench {_version('mbench')}")
    for entry_point in importlib.metadata.entry_points(group=hookspecs.PROJECT):
        distribution = entry_point.dist
        source = f"{distribution.name} {distribution.version}" if distribution else "unknown"
        _attempt(registry, entry_point.name, source, entry_point.load)
    for path in map(Path, files):
        registry.files.add(str(path))
        _attempt(registry, str(path), str(path), partial(_import_file, path))
    return registry


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _attempt(registry: Registry, name: str, source: str, load: Callable[[], ModuleType]) -> None:
    try:
        _add(registry, load(), name, source)
    # A stranger's module may raise anything at all, and must not stop the program.
    except (Exception, SystemExit) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        registry.failures.append(PluginFailure(name, reason))


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise FileNotFoundError(f"no such plugin file: {path}")
    name = "mbench_plugin_" + hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"not a Python file: {path}")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and pickling look a class's module up here.
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _add(registry: Registry, module: ModuleType, plugin: str, source: str) -> None:
    """Ask one plugin for all it offers, then register it; an error registers nothing of it."""
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    manager.register(module, plugin)
    manager.check_pending()
    if not manager.get_hookcallers(module):
        raise TypeError("the module implements no mbench hook (is @mbench.hookimpl missing?)")
    hook = manager.hook
    classes = [item for items in hook.mbench_components() for item in items]
    methods = [item for items in hook.mbench_methods() for item in items]
    corpora = {name: call for found in hook.mbench_corpora() for name, call in found.items()}
    models = {name: path for found in hook.mbench_models() for name, path in found.items()}
    directories = [Path(path) for found in hook.mbench_task_directories() for path in found]
    for item in classes:
        _kind(item)
    for method in methods:
        if not isinstance(method, Method):
            raise TypeError(f"mbench_methods returned {method!r}, which is not an mbench.Method")
    origin = Origin(plugin, source, source_hash(module))

    def put(table: dict[str, Any], kind: str, name: str, value: Any) -> None:
        if name in table:
            first = registry.origins[kind, name].plugin
            reason = f"{kind} {name!r} is already registered by {first}; this one is ignored"
            registry.failures.append(PluginFailure(plugin, reason))
            return
        table[name] = value
        registry.origins[kind, name] = origin

    for item in classes:
        put(registry.components[_kind(item)], _kind(item), item.name, item)
    for method in methods:
        put(registry.methods, "method", method.name, method)
    for name, documents in corpora.items():
        put(registry.corpora, "corpus", name, documents)
    for name, path in models.items():
        put(registry.models, "model", name, Path(path))
    registry.task_directories.extend(directories)
    if hook.mbench_panels.get_hookimpls():
        registry.panels.append((plugin, hook.mbench_panels))


def _kind(item: type[Component]) -> str:
    for kind, base in KINDS.items():
        if inspect.isclass(item) and issubclass(item, base):
            if inspect.isabstract(item):
                missing = ", ".join(sorted(item.__abstractmethods__))
                raise TypeError(f"{item.__name__} does not implement {missing}")
            if not isinstance(getattr(item, "name", None), str):
                raise TypeError(f"{item.__name__} has no name")
            return kind
    raise TypeError(f"{item!r} is not a Scorer, Selector, MaskBuilder or Statistic")


def source_hash(module: ModuleType) -> str:
    """sha256 of a single file's source, or of all modules of a package: plugins share helpers."""
    file = Path(module.__file__ or "")
    files = sorted(file.parent.glob("*.py")) if module.__package__ else [file]
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
