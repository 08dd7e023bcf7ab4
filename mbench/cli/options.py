"""Options that several verbs share, and the planned suite that they give."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mbench.cli.completing import names

if TYPE_CHECKING:
    from mbench.api.request import Request, Wish
    from mbench.plan.registry import PluginFailure, Registry
    from mbench.storage.store import Store

_NARROWING = {
    "--model": click.option(
        "--model",
        "models",
        multiple=True,
        metavar="NAME[=PATH_OR_ID[@REVISION]]",
        help="Load a model of the suite from another directory, or hub id at a branch, tag or"
        " commit; NAME alone: run only this model. Repeatable.",
        shell_complete=names("models"),
    ),
    "--text": click.option(
        "--text",
        "texts",
        multiple=True,
        metavar="NAME=FILE",
        help="Read a corpus or perplexity text of the suite from a local file, e.g. JSON lines."
        " Repeatable.",
        shell_complete=names("texts"),
    ),
    "--task": click.option(
        "--task",
        "tasks",
        multiple=True,
        metavar="NAME=FILE.yaml",
        help="Load a task of the suite from a local lm-eval task file. Repeatable.",
        shell_complete=names("tasks"),
    ),
    "--retain": click.option(
        "--retain",
        type=float,
        multiple=True,
        metavar="RATIO",
        help="Run only the budget that keeps this share of the experts, e.g. 0.5. Repeatable.",
    ),
    "--method": click.option(
        "--method",
        "methods",
        multiple=True,
        metavar="NAME",
        help="Run only this method: one of the suite's, or any ready-made one of a plugin."
        " Repeatable.",
        shell_complete=names("methods"),
    ),
    "--limit": click.option(
        "--limit", type=int, metavar="N", help="At most N items per task and N windows per text."
    ),
    "--set": click.option(
        "--set",
        "set_values",
        multiple=True,
        metavar="KEY.KEY=VALUE",
        help="Change one value of the suite; VALUE is YAML. Repeatable.",
    ),
}

plugin_option = click.option(
    "--plugin",
    "plugin_files",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE.py",
    help="Load a plugin from a single file. Repeatable.",
)


class StoreType(click.Path):
    """A folder, or a URL such as s3://BUCKET/PREFIX, which must not become a path."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """A URL as it is, anything else as a path."""
        if isinstance(value, str) and "://" in value:
            return value
        return super().convert(value, param, ctx)


STORE = StoreType(path_type=Path)

store_option = click.option(
    "--store",
    "store_root",
    type=STORE,
    metavar="DIR|URL",
    help="Where profiles, masks and evaluations are stored, e.g. s3://BUCKET/PREFIX"
    " [default: $MBENCH_STORE, else the user's cache].",
)


kind_option = click.option(
    "--kind",
    "kinds",
    multiple=True,
    type=click.Choice(["statistics", "masks", "evaluations", "probes", "efficiency", "facts"]),
    help="Only this kind. Repeatable.",
)

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")

suite_argument = click.argument(
    "suite", type=click.Path(path_type=Path), shell_complete=names("suites")
)


def suite_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the suite argument and all options that narrow or change the suite."""
    for option in reversed([suite_argument, *_NARROWING.values(), plugin_option, store_option]):
        function = option(function)
    return function


def early_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that end a mask before it had all items."""
    for option in (
        click.option(
            "--hours",
            type=float,
            metavar="H",
            help="Evaluate all masks on more and more items, in turns, and begin nothing after H"
            " hours.",
        ),
        click.option(
            "--precision",
            type=float,
            metavar="WIDTH",
            help="Leave out the rest of a task's items for a mask once its difference to the"
            " unpruned model is known to ± WIDTH in 95 of 100 cases, in units of the task's metric"
            " (0.01: a point of accuracy, 1 % of a perplexity).",
        ),
    ):
        function = option(function)
    return function


def narrowing_options(*flags: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add only these of the options that narrow or change the suite."""

    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        for flag, option in reversed(_NARROWING.items()):
            if flag in flags:
                function = option(function)
        return function

    return add


def request(suite: Path, **options: Any) -> Request:
    """Load plugins, read the suite and plan it; notes and warnings go to standard error."""
    from mbench.api.request import request as planned

    return request_of(planned, suite, **options)


def request_of(
    planned: Callable[[Wish, Callable[[str], object]], Request],
    suite: Path,
    plugin_files: tuple[Path, ...] = (),
    store_root: Path | str | None = None,
    *,
    only_look: bool = False,
    trust_expected: bool = False,
    **narrowing: Any,
) -> Request:
    """What `planned` makes of a suite and the options of a verb; damage is told at its end."""
    from mbench.api.request import Wish

    wish = Wish(
        suite,
        plugin_files=plugin_files,
        narrowing=narrowing,
        store=store_root,
        only_look=only_look,
        trust_expected=trust_expected,
    )
    asked = planned(wish, _say)
    warn_of_damage(asked.store)
    return asked


def _say(line: str) -> None:
    click.echo(line, err=True)


def warn_of_damage(store: Store) -> None:
    """At the end of the verb, a line for each damaged artefact that nobody has reported by then."""

    def report(text: str) -> None:
        click.echo(f"warning: {text}", err=True)

    click.get_current_context().call_on_close(lambda: store.listen(report))


def warn_of_failures(registry: Registry, failures: Sequence[PluginFailure] | None = None) -> None:
    """One line on standard error for each plugin, or name, that could not be used."""
    for failure in registry.failures if failures is None else failures:
        click.echo(f"warning: plugin {failure.plugin}: {failure.reason}", err=True)
