"""A suite as somebody asks for it, with plugins and changes, planned."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mbench.core.collection import without_collection
from mbench.core.errors import PluginError, SuiteError, shown
from mbench.plan.given_plugins import GivenPlugin, as_plugin, missing_methods

if TYPE_CHECKING:
    from mbench.plan.lock import Lock
    from mbench.plan.plan import Plan
    from mbench.plan.registry import Registry
    from mbench.plan.yaml_source import YamlSource
    from mbench.storage.store import Store

FLAGS = {
    "models": "--model",
    "texts": "--text",
    "tasks": "--task",
    "retain": "--retain",
    "methods": "--method",
    "limit": "--limit",
    "set_values": "--set",
}
"""Options that change the suite."""


@dataclass(frozen=True)
class Wish:
    """What is asked for."""

    suite: Path | Mapping[str, Any]
    """A file, the name of a suite that comes with mbench, or a suite as plain values."""
    plugin_files: tuple[Path, ...] = ()
    plugins: tuple[Any, ...] = ()
    """Classes, modules and objects of this process (see `as_plugin`)."""
    methods: Mapping[str, Any] = field(default_factory=dict)
    """To add or to replace, as a suite says them."""
    narrowing: Mapping[str, Any] = field(default_factory=dict)
    """The options of `FLAGS` by name."""
    store: Path | str | None = None
    only_look: bool = False
    """Whether no store is made where there is none."""
    trust_expected: bool = False
    """Whether what is out of reach may be planned by what the suite says of it."""
    broken_files: bool = True
    """Whether all else goes on where a plugin file cannot be loaded; otherwise it is an error."""


@dataclass(frozen=True)
class Request:
    """A suite as it is asked for, planned."""

    plan: Plan
    store: Store
    registry: Registry
    source: YamlSource
    """Where the suite's keys stand, for errors."""
    changes: tuple[str, ...]
    """The words of a command line that narrow or change the suite in this way."""

    @property
    def path(self) -> Path:
        """The suite's file, or its name where it has none."""
        return self.source.path

    @property
    def lock(self) -> Lock:
        """What repeats the run; raises `MbenchError` where a file cannot be read."""
        from mbench.plan.lock import lock_of

        return lock_of(self.plan, self.source.plain())


@without_collection()
def request(wish: Wish, tell: Callable[[str], object]) -> Request:
    """Load plugins, read the suite and plan it; notes and warnings, a line each, go to `tell`.

    Raises the first mistake as an `MbenchError`.
    """
    from mbench.plan.lock import is_lock, lock_of, read_lock
    from mbench.plan.locked_run import (
        locked_plugins,
        python_note,
        refuse_another_plan,
        refuse_options,
        refuse_other_code,
        refuse_other_files,
    )
    from mbench.plan.plan import make_plan
    from mbench.plan.shipped import find_suite
    from mbench.plan.suite_file import narrowed, validated
    from mbench.plan.yaml_source import YamlSource
    from mbench.plan.yaml_text import PlacedMap
    from mbench.run.environment import set_up_libraries
    from mbench.storage.inputs import Inputs
    from mbench.storage.reading import store_to_read
    from mbench.storage.store import Store, default_root

    # First, because plugins take seconds to load.
    given = [as_plugin(item) for item in wish.plugins]
    plugin_files, note, lock = wish.plugin_files, "", None
    changes = tuple(_changes(wish))
    if isinstance(wish.suite, Mapping):
        source = YamlSource.given(wish.suite)
    else:
        path, note = find_suite(wish.suite)
        lock = read_lock(path) if is_lock(path) else None
        source = YamlSource(path, PlacedMap()) if lock is not None else YamlSource.read(path)
    if lock is None:
        _add_methods(source, wish.methods, given)
        loaded = narrowed(source, **wish.narrowing)
    else:
        refuse_options(source.path, changes)
        refuse_other_code(source.path, lock)
        plugin_files = tuple(locked_plugins(source.path, lock, plugin_files))
        source.data.update(lock.suite)
        loaded = validated(source)
        note = python_note(lock)
    set_up_libraries()
    registry = _registry(plugin_files, given, tell, broken_files=wish.broken_files)
    if note:
        tell(f"note: {note}")
    store = store_to_read(wish.store) if wish.only_look else Store(wish.store or default_root())
    if lock is not None:
        refuse_other_files(source.path, lock, store)
    inputs = Inputs(store, tell, None if lock is None else lock.hub)
    plan = make_plan(
        loaded, source, registry, store, trust_expected=wish.trust_expected, inputs=inputs
    )
    if lock is not None:
        refuse_another_plan(source.path, lock, lock_of(plan, source.plain()))
    return Request(plan, store, registry, source, changes)


def _registry(
    files: Sequence[Path],
    given: Sequence[GivenPlugin],
    tell: Callable[[str], object],
    *,
    broken_files: bool,
) -> Registry:
    """What all plugins offer; one that cannot be loaded is told, or raised (see `Wish`)."""
    from mbench.plan.plugin_loading import load_registry

    registry = load_registry(files, given)
    for failure in registry.rejected_files if not broken_files else ():
        raise PluginError(f"plugin {failure.plugin}: {failure.reason}")
    for failure in registry.failures:
        tell(f"warning: plugin {failure.plugin}: {failure.reason}")
    return registry


def _add_methods(
    source: YamlSource, methods: Mapping[str, Any], given: Sequence[GivenPlugin]
) -> None:
    """Put methods into the suite, and one for each scorer that nothing in it uses yet."""
    from mbench.plan.yaml_text import placed

    if not isinstance(methods, Mapping):
        raise SuiteError(f"methods= takes a mapping of names to methods, got {shown(methods)}")
    for name, method in methods.items():
        section = "candidates" if name in source.section("candidates") else "methods"
        option = f"methods= {name}"
        source.replace((section, name), placed({} if method is None else method, option), option)
    listed = {**source.section("methods"), **source.section("candidates")}
    for name in missing_methods(given, listed):
        source.replace(("methods", name), {}, f"plugins= {name}")


def _changes(wish: Wish) -> Iterator[str]:
    for name, method in wish.methods.items() if isinstance(wish.methods, Mapping) else ():
        yield from ("--set", f"methods.{name}={method}")
    for name, flag in FLAGS.items():
        given = wish.narrowing.get(name)
        for value in given if isinstance(given, tuple) else [] if given is None else [given]:
            yield from (flag, str(value))
