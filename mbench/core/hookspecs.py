"""What a plugin may implement. Every hook is optional; only `mbench_panels` takes an argument."""

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

    `content` is a DataFrame, shown without its index as a table that readers can sort; text,
    escaped; or `markupsafe.Markup`, which enters the page as it is: its author answers for it being
    whole and for every name in it being escaped (`Markup.format` does so).
    """

    title: str
    content: str | Markup | pd.DataFrame


@hookspec
def mbench_components() -> Sequence[type[Component]]:  # type: ignore[empty-body]
    """Return the statistic, scorer, selector and mask-builder classes that suites may name."""


@hookspec
def mbench_methods() -> Sequence[Method]:  # type: ignore[empty-body]
    """Return ready-made methods, each a named triple of components."""


@hookspec
def mbench_corpora() -> Mapping[str, Callable[[str], list[str]]]:  # type: ignore[empty-body]
    """Return corpora by name; each is a function from a split's name to its documents.

    If it has a method `identity(split) -> str` that changes whenever the documents do, plans need
    not read them.
    """


@hookspec
def mbench_models() -> Mapping[str, Path]:  # type: ignore[empty-body]
    """Return directories of model checkpoints by name."""


@hookspec
def mbench_task_directories() -> Sequence[Path]:  # type: ignore[empty-body]
    """Return directories with lm-eval task files."""


@hookspec
def mbench_panels(results: Results) -> Sequence[Panel]:  # type: ignore[empty-body]
    """Return sections to add to the report of a run, e.g. a table or a picture of one's own.

    It is called whenever a report is made, with all that the run found: `mbench.long_form(results)`
    has every figure, `results.masks` the experts that stay.
    """
