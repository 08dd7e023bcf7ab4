"""Writes a report: the page, tables for papers, the verdict, and the index of the folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mbench.core.results import Results
from mbench.report.charts import drawing
from mbench.report.page.index import VERDICT, to_json, write_index
from mbench.report.page.panels import collect
from mbench.report.page.render import render
from mbench.report.statistics.boards import RunBoards, boards
from mbench.report.tables_for_papers import write_tables
from mbench.storage.atomic import write_text_atomically


@dataclass(frozen=True)
class WrittenReport:
    """A report that was written."""

    page: Path
    boards: RunBoards
    warnings: tuple[str, ...]
    """On panels that failed, and an index that could not be written."""


def publish(
    results: Results,
    directory: Path,
    panels: Sequence[tuple[str, Callable[..., Any]]] = (),
) -> WrittenReport:
    """Write a report into `directory` and list it in the index beside it.

    `panels` holds the hooks of plugins (`Registry.panels`). A failing hook or index gives a
    warning.
    """
    drawing.warm_up()
    # Before the panels, whose code could change the results that it is given.
    run = boards(results)
    write_tables(run, directory)
    shown = collect(panels, results)
    page = render(run, directory, shown.parts)
    text = json.dumps(to_json(run), indent=1, ensure_ascii=False) + "\n"
    write_text_atomically(directory / VERDICT, text)
    warnings = list(shown.failures)
    try:
        write_index(directory.resolve().parent)
    # The index is a convenience: the report is complete without it.
    except Exception as error:
        warnings.append(f"no index of reports: {error}")
    return WrittenReport(page, run, tuple(warnings))
