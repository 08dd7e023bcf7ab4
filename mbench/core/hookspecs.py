"""The hooks that a plugin may implement. Each is optional; only `mbench_panels` has an argument."""

# pluggy reads the signatures of specifications and never calls them, so they have no bodies.
# mypy: disable-error-code="empty-body"

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    import pandas as pd
    from markupsafe import Markup

    from mbench.core.interfaces import Component, Method
    from mbench.core.results import Results

PROJECT = "mbench"
"""Name of the pluggy project and of the entry-point group that plugins register in."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@dataclass(frozen=True)
class Panel:
    """A section of the report that a plugin fills.

    `content` is a DataFrame, shown without its index as a table that readers can sort; text, which
    is escaped; or `markupsafe.Markup`, which enters the page as it is: its author makes sure that
    it is well-formed and that every name in it is escaped (`Markup.format` does so).
    """

    title: str
    content: str | Markup | pd.DataFrame


@hookspec
def mbench_components() -> Sequence[type[Component]]:
    """Return the scorer, selector and mask-builder classes that suites may name, and statistics.

    No suite names a statistic: scorers and builders list the ones that they need, registered or
    not. Registering one only lists it in `mbench plugins`.
    """


@hookspec
def mbench_methods() -> Sequence[Method]:
    """Return ready-made methods, each a named triple of components."""


@hookspec
def mbench_corpora() -> Mapping[str, Callable[[str], list[str]]]:
    """Return corpora by name; each is a function from a split's name to its documents.

    If it has a method `identity(split) -> str` that changes whenever the documents do, plans need
    not read them.
    """


@hookspec
def mbench_models() -> Mapping[str, Path]:
    """Return directories of model checkpoints by name."""


@hookspec
def mbench_task_directories() -> Sequence[Path]:
    """Return directories with lm-eval task files."""


@hookspec
def mbench_panels(results: Results) -> Sequence[Panel]:
    """Return sections to add to the report of a run, e.g. a table or a chart of the plugin's.

    It is called whenever a report is made, with the results of the run: `mbench.long_form(results)`
    has every figure, `results.masks` the experts that are kept.
    """
