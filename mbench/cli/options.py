"""Options that several verbs share, and the planned suite that they give."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from mbench.plan.cells import Plan
    from mbench.plan.lock import Lock
    from mbench.plan.registry import PluginFailure, Registry
    from mbench.plan.yaml_source import YamlSource
    from mbench.storage.store import Store

_SUITE_OPTIONS = [
    click.argument("suite", type=click.Path(path_type=Path)),
    click.option(
        "--model",
        "models",
        multiple=True,
        metavar="NAME[=PATH_OR_ID[@REVISION]]",
        help="Load a model of the suite from another directory, or hub id at a branch, tag or"
        " commit; NAME alone: run only this model. Repeatable.",
    ),
    click.option(
        "--text",
        "texts",
        multiple=True,
        metavar="NAME=FILE",
        help="Read a corpus or perplexity text of the suite from a local file, e.g. JSON lines."
        " Repeatable.",
    ),
    click.option(
        "--task",
        "tasks",
        multiple=True,
        metavar="NAME=FILE.yaml",
        help="Load a task of the suite from a local lm-eval task file. Repeatable.",
    ),
    click.option(
        "--retain",
        type=float,
        multiple=True,
        metavar="RATIO",
        help="Run only this retain ratio. Repeatable.",
    ),
    click.option(
        "--method",
        "methods",
        multiple=True,
        metavar="NAME",
        help="Run only this method: one of the suite's, or any ready-made one of a plugin."
        " Repeatable.",
    ),
    click.option(
        "--limit", type=int, metavar="N", help="At most N items per task and N windows per text."
    ),
    click.option(
        "--set",
        "set_values",
        multiple=True,
        metavar="KEY.KEY=VALUE",
        help="Change one value of the suite; VALUE is YAML. Repeatable.",
    ),
]

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

plugin_option = click.option(
    "--plugin",
    "plugin_files",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE.py",
    help="Load a plugin from a single file. Repeatable.",
)

store_option = click.option(
    "--store",
    "store_root",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder of stored profiles, masks and evaluations [default: $MBENCH_STORE, else the"
    " user's cache].",
)


def suite_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the suite argument and all options that narrow or change the suite."""
    for option in reversed([*_SUITE_OPTIONS, plugin_option, store_option]):
        function = option(function)
    return function


@dataclass(frozen=True)
class Request:
    """A suite as the command line asks for it, planned."""

    plan: Plan
    store: Store
    registry: Registry
    source: YamlSource
    """Where the suite's keys stand, for errors."""
    path: Path
    changes: tuple[str, ...]
    """The words of the command line that narrow or change the suite."""

    @property
    def lock(self) -> Lock:
        """What repeats the run; raises `MbenchError` where a file cannot be read."""
        from mbench.plan.lock import lock_of

        return lock_of(self.plan, self.source.plain())


def request(
    suite: Path,
    plugin_files: tuple[Path, ...],
    store_root: Path | None,
    *,
    trust_expected: bool = False,
    **narrowing: Any,
) -> Request:
    """Load plugins, read the suite and plan it; warnings of plugins go to standard error."""
    from mbench.plan.cells import make_plan
    from mbench.plan.lock import is_lock, lock_of, read_lock
    from mbench.plan.locked_run import (
        locked_plugins,
        python_note,
        refuse_another_plan,
        refuse_options,
        refuse_other_code,
        refuse_other_files,
    )
    from mbench.plan.plugin_loading import load_registry
    from mbench.plan.shipped import find_suite
    from mbench.plan.suite_file import load_suite, validated
    from mbench.plan.yaml_source import YamlSource
    from mbench.plan.yaml_text import PlacedMap
    from mbench.run.environment import set_up_libraries
    from mbench.storage.inputs import Inputs
    from mbench.storage.store import Store, default_root

    # First, because plugins take seconds to load.
    path, note = find_suite(suite)
    changes = tuple(_changes(narrowing))
    lock = read_lock(path) if is_lock(path) else None
    if lock is None:
        loaded, source = load_suite(path, **narrowing)
    else:
        refuse_options(path, changes)
        refuse_other_code(path, lock)
        plugin_files = tuple(locked_plugins(path, lock, plugin_files))
        source = YamlSource(path, PlacedMap())
        source.data.update(lock.suite)
        loaded = validated(source)
        note = python_note(lock)
    set_up_libraries()
    registry = load_registry(plugin_files)
    warn_of_failures(registry)
    if note:
        click.echo(f"note: {note}", err=True)
    store = Store(store_root or default_root())
    warn_of_damage(store)
    if lock is not None:
        refuse_other_files(path, lock, store)
    inputs = Inputs(store, _say, None if lock is None else lock.hub)
    plan = make_plan(loaded, source, registry, store, trust_expected=trust_expected, inputs=inputs)
    if lock is not None:
        refuse_another_plan(path, lock, lock_of(plan, source.plain()))
    return Request(plan, store, registry, source, path, changes)


def _say(line: str) -> None:
    click.echo(line, err=True)


def _changes(narrowing: Mapping[str, Any]) -> Iterator[str]:
    for name, flag in FLAGS.items():
        given = narrowing.get(name)
        for value in given if isinstance(given, tuple) else [] if given is None else [given]:
            yield from (flag, str(value))


def warn_of_damage(store: Store) -> None:
    """At the end of the verb, a line for each damaged artefact that nobody has reported by then."""

    def report(text: str) -> None:
        click.echo(f"warning: {text}", err=True)

    click.get_current_context().call_on_close(lambda: store.listen(report))


def warn_of_failures(registry: Registry, failures: Sequence[PluginFailure] | None = None) -> None:
    """One line on standard error for each plugin, or name, that could not be used."""
    for failure in registry.failures if failures is None else failures:
        click.echo(f"warning: plugin {failure.plugin}: {failure.reason}", err=True)
