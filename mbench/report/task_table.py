"""Where a lead comes from: every task alone, each method against the one that leads."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from itertools import combinations

from mbench import stats
from mbench.evaluate.outcome import LOWER_IS_BETTER
from mbench.report.comparison import p_value, samples
from mbench.report.pairing import pair, to_part
from mbench.report.ranking import LEVEL, Standing
from mbench.report.tables import MISSING, Cell, Column, Row, Table
from mbench.report.words import signed
from mbench.results import Results


def task_table(
    results: Results,
    ranked: Sequence[Standing],
    uninformative: Collection[str],
    id: str,
    where: str,
) -> Table | None:
    """Each method minus the leader on each task; None where there is nothing to compare.

    Perplexities are compared by their logarithm, the mean loss per token. Holm's method corrects
    over all pairs of methods on all tasks, because the leader is chosen by looking at them.
    """
    methods = [standing.entry for standing in ranked if standing.rank is not None]
    if len(methods) < 2:
        return None
    pairs = math.comb(len(methods), 2) * len(results.task_metrics)
    values: dict[tuple[str, str, str], float] = {}
    p: dict[tuple[str, str, str], float] = {}
    for task, metric in results.task_metrics.items():
        cells = [cell for entry in methods for cell in entry.cells]
        paired = pair(cells, [to_part(task, metric)])
        sampled = samples(methods, paired, stats.enough_resamples(pairs), intervals=False)
        for one, other in combinations(sampled, 2):
            key = (task, one.entry.method, other.entry.method)
            values[key], p[key] = other.value - one.value, p_value(one, other)
    adjusted = dict(zip(p, stats.holm(list(p.values())), strict=True))
    leader = methods[0].method
    columns = [Column("Method", number=False)]
    for task, metric in results.task_metrics.items():
        unit = "log, less is better" if metric in LOWER_IS_BETTER else metric
        columns.append(Column(task, "at floor" if task in uninformative else unit))
    rows = []
    for entry in methods[1:]:
        cells = []
        for task in results.task_metrics:
            key = (task, leader, entry.method)
            if key not in values:
                cells.append(MISSING)
                continue
            value = values[key]
            real = adjusted[key] < LEVEL and task not in uninformative
            cells.append(Cell(signed(value), sort=value, kind="real" if real else "quiet"))
        rows.append(Row(Cell(entry.method), tuple(cells)))
    caption = f"Difference from {leader}, task by task (bold: separated): {where}"
    return Table(id, caption, tuple(columns), tuple(rows))
