"""The table of one budget that has every metric of every task."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from mbench.core.evaluation import LOWER_IS_BETTER
from mbench.core.results import Results
from mbench.report.statistics.floors import Floor, at_floor
from mbench.report.statistics.groups import Entry, Group
from mbench.report.statistics.ranking import Standing
from mbench.report.statistics.seed_summaries import summarize
from mbench.report.tables.table import MISSING, Cell, Column, Row, Table
from mbench.report.words import number


def metric_table(
    results: Results,
    group: Group,
    ranked: Sequence[Standing],
    uninformative: Mapping[str, Floor],
    id: str,
    where: str,
) -> Table:
    """Methods in the leaderboard's order; of those ranked, the best figure of a task is marked.

    Nothing is marked where a task is at its floor (`uninformative`).
    """
    columns = [Column("Method", number=False)]
    parts: list[tuple[str, str]] = []
    for task, declared in results.task_metrics.items():
        for metric in _metrics(group, task, declared):
            detail = metric + (" ↓" if metric in LOWER_IS_BETTER else "")
            detail += at_floor(task, uninformative)
            columns.append(
                Column(task, detail, task=task, metric=metric, declared=metric == declared)
            )
            parts.append((task, metric))
    entries = [standing.entry for standing in ranked]
    means = [[_mean(entry, *part) for part in parts] for entry in entries]
    comparable = [
        own for standing, own in zip(ranked, means, strict=True) if standing.rank is not None
    ]
    best = [
        None if task in uninformative else _best([own[n] for own in comparable], metric)
        for n, (task, metric) in enumerate(parts)
    ]
    rows = []
    if group.unpruned:
        unpruned = Entry("unpruned", (group.unpruned,))
        rows.append(
            Row(Cell("unpruned"), tuple(_cell(unpruned, *part) for part in parts), "pinned")
        )
    for standing, own in zip(ranked, means, strict=True):
        entry, marked = standing.entry, standing.rank is not None
        cells = tuple(
            _cell(entry, *part, best=marked and value is not None and value == top)
            for part, value, top in zip(parts, own, best, strict=True)
        )
        rows.append(Row(Cell(entry.method), cells))
    return Table(id, f"Every metric: {where}", tuple(columns), tuple(rows))


def _metrics(group: Group, task: str, declared: str) -> Iterator[str]:
    """The declared metric first, then what else any mask of the group has."""
    cells = [group.unpruned] if group.unpruned else []
    cells += [cell for setting in group.settings for e in setting.entries for cell in e.cells]
    found = [m.name for c in cells if task in c.evaluations for m in c.evaluations[task].metrics]
    yield from dict.fromkeys([declared, *found])


def _mean(entry: Entry, task: str, metric: str) -> float | None:
    figures = [cell.metric(task, metric) for cell in entry.cells]
    if any(figure is None for figure in figures):
        return None
    return summarize(figure.value for figure in figures).mean


def _best(values: Sequence[float | None], metric: str) -> float | None:
    found = [value for value in values if value is not None and not math.isnan(value)]
    if not found:
        return None
    return min(found) if metric in LOWER_IS_BETTER else max(found)


def _cell(entry: Entry, task: str, metric: str, best: bool = False) -> Cell:
    figures = [cell.metric(task, metric) for cell in entry.cells]
    if any(figure is None for figure in figures):
        return MISSING
    summary = summarize(figure.value for figure in figures)
    error = figures[0].stderr if summary.count == 1 else summary.std
    details = (f"± {number(metric, error, summary.mean)}",) if math.isfinite(error) else ()
    text = number(metric, summary.mean)
    return Cell(text, details, summary.mean, "best" if best else "")
