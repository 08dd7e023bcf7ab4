"""Panels of plugins; a plugin that fails loses its own panel and nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

from markupsafe import Markup

from mbench.core.clean_text import visible
from mbench.core.errors import MbenchError, caught
from mbench.core.hookspecs import Panel
from mbench.core.plugin_code import plugin_code
from mbench.core.results import Results
from mbench.report.page.part import Block, Part, Text
from mbench.report.tables.table import Cell, Column, Row, Table


@dataclass(frozen=True)
class Panels:
    """The panels of all plugins for a run."""

    parts: tuple[Part, ...]
    failures: tuple[str, ...]
    """A line for each plugin whose panel failed."""


def collect(hooks: Sequence[tuple[str, Callable[..., Any]]], results: Results) -> Panels:
    """Ask every plugin for its panels; one that fails has a panel that states the reason.

    `hooks` holds each plugin's name and its `mbench_panels` (`Registry.panels`).
    """
    parts: list[Part] = []
    failures: list[str] = []
    for plugin, hook in hooks:
        origin = Markup('<p class="meta">From the plugin <code>{}</code></p>').format(
            visible(plugin)
        )
        try:
            with plugin_code("the hook"):
                panels = [panel for answer in hook(results=results) for panel in answer]
                shown = [
                    _part(panel, origin, f"panel-{number}")
                    for number, panel in enumerate(panels, len(parts) + 1)
                ]
        # The figures must be shown all the same.
        except MbenchError as error:
            title, id = f"Panel of {plugin}", f"panel-{len(parts) + 1}"
            parts.append(Part(title, (origin,), id, failure=caught(error)))
            failures.append(f"plugin {plugin}: its panel failed: {caught(error)}")
        else:
            parts += shown
    return Panels(tuple(parts), tuple(failures))


def _part(panel: Any, origin: Markup, id: str) -> Part:
    if not isinstance(panel, Panel):
        raise TypeError(f"mbench_panels returned {panel!r}, which is not an mbench.Panel")
    title = str(panel.title)
    return Part(title, (origin, _block(title, panel.content, f"{id}-table")), id)


def _block(title: str, content: Any, id: str) -> Block:
    import pandas as pd

    if isinstance(content, Markup):
        return content
    if isinstance(content, str):
        return Text(content)
    if not isinstance(content, pd.DataFrame) or content.empty:
        kind = "an empty DataFrame" if isinstance(content, pd.DataFrame) else type(content).__name__
        raise TypeError(f"panel {title!r} holds {kind}, not text, markup or a DataFrame with rows")
    columns = tuple(
        Column(str(name), number=pd.api.types.is_numeric_dtype(dtype))
        for name, dtype in content.dtypes.items()
    )
    rows = []
    for values in content.itertuples(index=False, name=None):
        head, *cells = map(_cell, values)
        rows.append(Row(head, tuple(cells)))
    return Table(id, title, columns, tuple(rows))


def _cell(value: Any) -> Cell:
    if isinstance(value, Real) and not isinstance(value, bool):
        number = float(value)
        text = f"{number:.4g}" if not number.is_integer() else str(value)
        return Cell(text, sort=number if math.isfinite(number) else None)
    return Cell(str(value))
