"""What a shell completes behind a command: names of suites, and what they and plugins name."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import click
from click.shell_completion import CompletionItem

Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]

SECTIONS = {
    "models": ("models",),
    "texts": ("corpora", "perplexity"),
    "tasks": ("tasks",),
    "methods": ("methods", "candidates"),
}
"""Where a suite lists what an option names."""


def names(what: str) -> Completer:
    """Completes `suites`, `plugin models`, or the names in `SECTIONS` of the suite given before."""

    def complete(
        ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        try:
            known = LISTED[what]() if what in LISTED else _in_suite(ctx, what)
            fitting = [name for name in known if name.startswith(incomplete)]
            items = [CompletionItem(name) for name in fitting if name.isprintable()]
        # Whatever is wrong is told when the command runs.
        except Exception:
            items = []
        # A shell that is told to complete files forgets the names.
        if what in LISTED and not items:
            items.append(CompletionItem(incomplete, type="file"))
        return items

    return complete


def _suites() -> Iterable[str]:
    from mbench.plan.shipped import shipped_suites

    return shipped_suites()


def _plugin_models() -> Iterable[str]:
    from mbench.plan.plugin_loading import load_registry

    return load_registry().models


LISTED: dict[str, Callable[[], Iterable[str]]] = {
    "suites": _suites,
    "plugin models": _plugin_models,
}
"""What may as well be the name of a file or folder."""


def _in_suite(ctx: click.Context, what: str) -> Iterable[str]:
    """Of the suite, and for methods those of installed plugins and of the files given so far."""
    found: dict[str, None] = {}
    if what == "methods":
        from mbench.plan.plugin_loading import load_registry

        files = [Path(file) for file in ctx.params.get("plugin_files") or ()]
        found |= dict.fromkeys(sorted(load_registry(files).methods))
    # An option that lacks its value keeps click from telling arguments apart.
    suite = ctx.params.get("suite") or next(iter(ctx.args), None)
    if suite is not None:
        from mbench.plan.shipped import find_suite
        from mbench.plan.yaml_source import YamlSource

        source = YamlSource.read(find_suite(Path(suite))[0])
        listed = [name for section in SECTIONS[what] for name in source.section(section)]
        found = dict.fromkeys([*listed, *found])
    return found
