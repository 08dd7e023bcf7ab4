"""Panels of plugins on the page; a plugin that fails loses its own panel and nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

from markupsafe import Markup

from mbench.core.hookspecs import Panel
from mbench.core.results import Results
from mbench.report.tables.table import Cell, Column, Row, Table


@dataclass(frozen=True)
class ShownPanel:
    """A panel in the words of the page: one of markup, table, failure or text."""

    title: str
    plugin: str
    text: str = ""
    markup: Markup | None = None
    table: Table | None = None
    failure: str = ""


def collect(
    hooks: Sequence[tuple[str, Callable[..., Any]]], results: Results
) -> tuple[ShownPanel, ...]:
    """Ask every plugin for its panels; where one raises or gets it wrong, its panel says so.

    `hooks` holds each plugin's name and its `mbench_panels` (`Registry.panels`).
    """
    shown: list[ShownPanel] = []
    for plugin, hook in hooks:
        try:
            panels = [panel for answer in hook(results=results) for panel in answer]
            first = len(shown) + 1
            shown += [_show(plugin, panel, number) for number, panel in enumerate(panels, first)]
        # A stranger's code may raise anything, and the figures must be shown all the same.
        except (Exception, SystemExit) as error:
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            shown.append(ShownPanel(f"Panel of {plugin}", plugin, failure=reason))
    return tuple(shown)


def _show(plugin: str, panel: Any, number: int) -> ShownPanel:
    import pandas as pd

    if not isinstance(panel, Panel):
        raise TypeError(f"mbench_panels returned {panel!r}, which is not an mbench.Panel")
    title, content = str(panel.title), panel.content
    if isinstance(content, Markup):
        return ShownPanel(title, plugin, markup=content)
    if isinstance(content, str):
        return ShownPanel(title, plugin, text=content)
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
    table = Table(f"panel-{number}-table", title, columns, tuple(rows))
    return ShownPanel(title, plugin, table=table)


def _cell(value: Any) -> Cell:
    if isinstance(value, Real) and not isinstance(value, bool):
        number = float(value)
        text = f"{number:.4g}" if not number.is_integer() else str(value)
        return Cell(text, sort=number if math.isfinite(number) else None)
    return Cell(str(value))
