"""Writes a report: the page, tables for papers, the verdict, and the index of the folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mbench.core.clean_text import cleaned
from mbench.core.collection import without_collection
from mbench.core.results import Results
from mbench.report.charts import drawing
from mbench.report.item_files import FOLDER, write_items
from mbench.report.page.index import to_json, write_index
from mbench.report.page.panels import collect
from mbench.report.page.render import render
from mbench.report.page.score_maps import MAPS
from mbench.report.statistics.boards import RunBoards, boards
from mbench.report.tables_for_papers import LATEX, MARKDOWN, write_tables
from mbench.storage.atomic import write_text_atomically
from mbench.storage.report_folder import LOCK, PAGE, VERDICT, replacing
from mbench.storage.results_folder import RESULT_FILES, write

RENDERED = (PAGE, MAPS, LATEX, MARKDOWN, VERDICT)
"""Files that follow from results."""


@dataclass(frozen=True)
class WrittenReport:
    """A report that was written."""

    page: Path
    boards: RunBoards
    warnings: tuple[str, ...]
    """On panels that failed, and an index that could not be written."""


@without_collection()
def publish(
    results: Results,
    directory: Path,
    panels: Sequence[tuple[str, Callable[..., Any]]] = (),
    *,
    files: Mapping[str, str] | None = None,
) -> WrittenReport:
    """Replace the report in `directory` as a whole, and list it in the index beside it.

    `panels` holds the hooks of plugins (`Registry.panels`). `files` are texts to keep beside the
    results, by name; None: the results are those that `directory` has, whose files stay. A failing
    hook or index gives a warning. Raises `StoreError`, and leaves `directory` as it was, where
    something cannot be written.
    """
    drawing.warm_up()
    results = cleaned(results)
    # Before the panels, whose code could change the results that it is given.
    run = boards(results)
    shown = collect(panels, results)
    warnings = list(shown.failures)
    ours = RENDERED if files is None else (*RENDERED, *RESULT_FILES, LOCK)
    with replacing(directory, ours, [FOLDER]) as replacement:
        if files is not None:
            write(results, replacement.folder)
            write_items(results, replacement.folder)
            for name, text in files.items():
                write_text_atomically(replacement.folder / name, text)
        write_tables(run, replacement.folder)
        render(run, replacement.folder, cleaned(shown.parts))
        verdicts = json.dumps(to_json(run), ensure_ascii=False) + "\n"
        write_text_atomically(replacement.folder / VERDICT, verdicts)
    if drawing.problem():
        warnings.append(f"the page has no picture of a chart: {drawing.problem()}")
    if replacement.one_by_one:
        warnings.append(
            f"the files of {directory} were replaced one by one: {replacement.one_by_one}"
        )
    try:
        write_index(directory.resolve().parent)
    # The index is a convenience: the report is complete without it.
    except Exception as error:
        warnings.append(f"no index of reports: {error}")
    return WrittenReport(directory / PAGE, run, tuple(warnings))
