"""Figures from papers beside ours."""

from __future__ import annotations

import math
from collections.abc import Iterator

from mbench.core.cell_results import CellResult
from mbench.core.results import Results
from mbench.report.figures_of_papers import Figure, Published
from mbench.report.statistics.boards import GroupBoards
from mbench.report.statistics.groups import Group
from mbench.report.statistics.seed_summaries import summarize
from mbench.report.tables.table import Cell, Column, Row, Table
from mbench.report.words import difference, number, percent


def published_figures(boards: GroupBoards, paper: Published, id: str) -> Table | None:
    """The paper's figures for the same model, method, budget and task; None if there are none."""
    results, group = boards.results, boards.group
    if not _same_model(boards, paper):
        return None
    rows = []
    for figure in paper.figures:
        if figure.model != group.model:
            continue
        ours = _ours(results, group, figure, figure.method)
        other = _ours(results, group, figure, figure.minus) if figure.minus else 0.0
        if ours is not None and other is not None:
            rows.append(_row(results, figure, ours - other))
    columns = (
        Column("Method", number=False),
        Column("Pruned"),
        Column("Figure", number=False),
        Column("Paper"),
        Column("Here"),
        Column("Here − paper"),
        Column("Stated in", number=False),
    )
    caption = f"{paper.paper}: {group.model}, router {group.router}"
    return Table(id, caption, columns, tuple(rows)) if rows else None


def _same_model(boards: GroupBoards, paper: Published) -> bool:
    expected, model = paper.models.get(boards.group.model), boards.group.model
    shapes = {keep.shape[1] for (name, _), keep in boards.results.masks.items() if name == model}
    return expected is not None and shapes == {expected.experts}


def _ours(results: Results, group: Group, figure: Figure, method: str) -> float | None:
    """Our value of the figure; None unless every seed has a result."""
    values = [_value(results, cell, figure.task) for cell in _cells(group, figure, method)]
    present = [value for value in values if value is not None]
    if not values or len(present) < len(values):
        return None
    value: float = getattr(summarize(present), figure.over_seeds)
    return value if math.isfinite(value) else None


def _cells(group: Group, figure: Figure, method: str) -> Iterator[CellResult]:
    for budget in group.budgets:
        for entry in budget.entries:
            if entry.method == method and math.isclose(budget.retain, figure.retain):
                yield from (c for c in entry.cells if figure.seed in (None, c.seed))


def _value(results: Results, cell: CellResult, task: str) -> float | None:
    if results.average and task == results.average:
        average = results.average_of(cell)
        return None if average is None else average.value
    if task in results.task_metrics:
        return cell.value(task, results.task_metrics[task])
    return None


def _row(results: Results, figure: Figure, ours: float) -> Row:
    metric = results.task_metrics.get(figure.task, "")

    def write(value: float) -> str:
        return difference(value) if figure.minus else number(metric, value)

    kind = [f"seed {figure.seed}"] if figure.seed is not None else []
    kind += [figure.over_seeds + " over seeds"] if figure.over_seeds != "mean" else []
    kind += [f"over {figure.minus}"] if figure.minus else []
    gap = ours - figure.value
    apart = f"{gap:+.1f}".replace("-", "−") if metric == "perplexity" else difference(gap)
    return Row(
        Cell(figure.method),
        (
            Cell(percent(1 - figure.retain), sort=1 - figure.retain),
            Cell(figure.task, (", ".join(kind),) if kind else ()),
            Cell(write(figure.value), sort=figure.value),
            Cell(write(ours), sort=ours),
            Cell(apart, sort=gap),
            Cell(figure.where, kind="prose"),
        ),
    )
