"""Where a lead comes from: every task alone, each method against the one that leads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mbench.core.evaluation import LOWER_IS_BETTER
from mbench.report.statistics.floors import Floor
from mbench.report.statistics.ranking import Standing
from mbench.report.statistics.task_differences import TaskComparison
from mbench.report.tables.table import MISSING, Cell, Column, Row, Table
from mbench.report.words import signed


def task_table(
    tasks: Mapping[str, str],
    compared: Mapping[str, TaskComparison],
    ranked: Sequence[Standing],
    uninformative: Mapping[str, Floor],
    id: str,
    where: str,
) -> Table | None:
    """Each method minus the leader on each of `tasks`; None where there is nothing to compare."""
    methods = [standing.entry.method for standing in ranked if standing.rank is not None]
    if len(methods) < 2:
        return None
    leader = methods[0]
    columns = [Column("Method", number=False)]
    for task, metric in tasks.items():
        unit = "log, less is better" if metric in LOWER_IS_BETTER else metric
        floor = f"at floor {uninformative[task].level:.2f}" if task in uninformative else ""
        columns.append(Column(task, floor or unit))
    rows = []
    for method in methods[1:]:
        cells = []
        for one in compared.values():
            if not one.figures.keys() >= {leader, method}:
                cells.append(MISSING)
                continue
            value = one.figures[method] - one.figures[leader]
            kind = "real" if frozenset((leader, method)) in one.apart else "quiet"
            cells.append(Cell(signed(value), sort=value, kind=kind))
        rows.append(Row(Cell(method), tuple(cells)))
    caption = f"Difference from {leader}, task by task (bold: separated): {where}"
    return Table(id, caption, tuple(columns), tuple(rows))
