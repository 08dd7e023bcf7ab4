"""Who stands where at each budget, and which differences are real."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mbench import stats
from mbench.errors import MbenchError
from mbench.report.arrange import RANDOM, Entry, Group, Score, Setting
from mbench.results import CellResult

LEVEL = 0.05


@dataclass(frozen=True)
class Standing:
    """One method at one budget."""

    entry: Entry
    summary: stats.Summary | None
    """The score over seeds (or of the only cell), of the cells that have one."""
    rank: int | None = None
    """None for a method with a cell that has no score: it cannot be compared."""
    from_leader: stats.Difference | None = None
    """This method minus the best one; None for the best one itself."""
    tied: bool = False
    """Whether it is not separated from the best one, or is it."""
    from_random: stats.Difference | None = None
    differs_from_random: bool = False
    """Whether it is separated from the mean of random pruning."""
    recovered: float | None = None


def standings(group: Group, score: Score) -> dict[float, tuple[Standing, ...]]:
    """Retain ratio -> methods from best to worst, then those that cannot be ranked."""
    cells = [
        cell
        for setting in group.settings
        for entry in setting.entries
        for cell in entry.cells
        if score.value(cell) is not None
    ]
    if not cells:
        return {s.retain: tuple(Standing(e, None) for e in s.entries) for s in group.settings}
    rng = np.random.default_rng(0)
    strata = [_stratum(cells, *part) for part in score.parts]
    enough = min(len(stratum.totals) for stratum in strata) >= stats.FEWEST_ITEMS
    most = max(math.comb(len(setting.entries), 2) for setting in group.settings)
    draws = stats.resample(strata, rng, stats.enough_resamples(most))
    columns = {id(cell): column for column, cell in enumerate(cells)}
    unpruned = score.value(group.unpruned) if group.unpruned else None
    return {
        setting.retain: _rank(setting, score, draws, columns, unpruned, rng, enough)
        for setting in group.settings
    }


def _rank(
    setting: Setting,
    score: Score,
    draws: np.ndarray,
    columns: dict[int, int],
    unpruned: float | None,
    rng: np.random.Generator,
    enough: bool,
) -> tuple[Standing, ...]:
    summaries, of_method, incomplete = {}, {}, []
    for entry in setting.entries:
        scored = [cell for cell in entry.cells if id(cell) in columns]
        values = [score.value(cell) for cell in scored]
        summary = stats.summarize(values) if values else None
        if len(scored) < len(entry.cells):
            incomplete.append(Standing(entry, summary))
            continue
        summaries[entry.method] = summary
        own = draws[:, [columns[id(cell)] for cell in scored]]
        of_method[entry.method] = stats.over_seeds(own, rng)

    def compare(first: str, second: str) -> stats.Difference:
        value = summaries[first].mean - summaries[second].mean
        return stats.difference(value, of_method[first], of_method[second])

    complete = {e.method: e for e in setting.entries if e.method in summaries}
    sign = -1 if score.higher else 1
    order = sorted(complete, key=lambda method: sign * summaries[method].mean)
    draws_of = [of_method[method] for method in order]
    differ = stats.separated(
        len(order),
        lambda a, b: stats.p_value(draws_of[a], draws_of[b]) if enough else 1.0,
        LEVEL,
    )
    random = order.index(RANDOM) if RANDOM in complete else None
    ranked = []
    for place, (method, rank) in enumerate(zip(order, stats.ranks(differ), strict=True)):
        from_random, differs, share = None, False, None
        if random is not None and unpruned is not None:
            share = stats.recovered(
                summaries[method].mean, summaries[RANDOM].mean, unpruned, score.higher
            )
        if random is not None and place != random:
            from_random, differs = compare(method, RANDOM), bool(differ[place, random])
        ranked.append(
            Standing(
                entry=complete[method],
                summary=summaries[method],
                rank=rank,
                from_leader=compare(method, order[0]) if place else None,
                tied=not differ[0, place],
                from_random=from_random,
                differs_from_random=differs,
                recovered=share,
            )
        )
    return (*ranked, *incomplete)


def _stratum(cells: Sequence[CellResult], task: str, metric: str) -> stats.Stratum:
    """The outcomes of all cells on one task, on the same items in the same order."""
    tables = [cell.evaluations[task].items for cell in cells]
    order = tables[0]["item"]
    aligned = []
    for cell, table in zip(cells, tables, strict=True):
        if not table["item"].equals(order):
            if len(table) != len(order) or set(table["item"]) != set(order):
                raise MbenchError(
                    f"{cell.method} was evaluated on other items of {task} than {cells[0].method}"
                )
            table = table.set_index("item").loc[order].reset_index()
        aligned.append(table)
    totals = "nll" if metric == "mean_nll" else metric
    values = np.column_stack([table[totals].to_numpy(float) for table in aligned])
    if metric == "mean_nll":
        return stats.Stratum(values, aligned[0]["tokens"].to_numpy(float))
    # In a group of tasks, not every item has every metric.
    values = values[~np.isnan(values).any(axis=1)]
    return stats.Stratum(values, np.ones(len(values)))
