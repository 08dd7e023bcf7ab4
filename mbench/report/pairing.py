"""The outcomes of many cells on the same items, and which cells cannot be put beside the others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mbench.evaluate.outcome import LOWER_IS_BETTER
from mbench.report.arrange import Group
from mbench.results import CellResult
from mbench.stats import Stratum

Part = tuple[str, str]
"""(task, metric)."""


def to_part(task: str, metric: str) -> Part:
    """What is compared where a task's figure is `metric`: of perplexities, their logarithm."""
    return task, "mean_nll" if metric in LOWER_IS_BETTER else metric


@dataclass(frozen=True)
class Paired:
    """Cells on the same items; `strata` has a column per cell of `columns`, a stratum per part."""

    strata: tuple[Stratum, ...]
    columns: dict[int, int]
    """id of a cell -> its column."""
    problems: dict[int, str]
    """id of a cell -> why it cannot be compared."""


def cells_of(group: Group) -> list[CellResult]:
    """The unpruned model first, then every cell of every budget."""
    pruned = [cell for s in group.settings for entry in s.entries for cell in entry.cells]
    return [group.unpruned, *pruned] if group.unpruned else pruned


def pair(cells: Iterable[CellResult], parts: Sequence[Part]) -> Paired:
    """Put the cells that have every part beside each other, item by item.

    The items of a task are those that most cells have (of equally many the first ones). A cell
    with other items, with items that occur twice, with other tokens per window or with outcomes
    that are not finite is left out and named; so are cells whose equal masks have unequal
    outcomes, because one of them must be wrong.
    """
    cells = [cell for cell in cells if all(cell.metric(*part) for part in parts)]
    problems: dict[int, str] = {}
    for part in parts:
        problems |= {key: text for key, text in _strangers(cells, *part) if key not in problems}
    kept = [cell for cell in cells if id(cell) not in problems]
    strata = tuple(_stratum(kept, *part) for part in parts) if kept else ()
    contradicting = dict(_contradictions(kept, parts, strata))
    if contradicting:
        kept_columns = [at for at, cell in enumerate(kept) if id(cell) not in contradicting]
        kept = [kept[at] for at in kept_columns]
        strata = tuple(Stratum(s.totals[:, kept_columns], s.sizes) for s in strata)
    columns = {id(cell): column for column, cell in enumerate(kept)}
    return Paired(strata if kept else (), columns, problems | contradicting)


def incomparable(group: Group, tasks: Mapping[str, str]) -> Iterator[tuple[CellResult, str]]:
    """Every cell that cannot be compared on one of `tasks` (task -> metric), with the reason."""
    cells = cells_of(group)
    for task, metric in tasks.items():
        problems = pair(cells, [to_part(task, metric)]).problems
        yield from ((cell, problems[id(cell)]) for cell in cells if id(cell) in problems)


def _outcomes(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """item, total, size; without the items that do not have this metric, as happens in groups."""
    if metric == "mean_nll":
        total, size = table["nll"], table["tokens"].astype(float)
    else:
        total, size = table[metric].astype(float), np.ones(len(table))
    found = pd.DataFrame({"item": table["item"].astype(object), "total": total, "size": size})
    return found if metric == "mean_nll" else found[found["total"].notna()]


def _strangers(cells: Sequence[CellResult], task: str, metric: str) -> Iterator[tuple[int, str]]:
    """Cells whose outcomes on a task are not beside the others', with the reason."""
    kinds: list[pd.DataFrame] = []  # item and size of each distinct set of items, by item
    members: list[list[int]] = []
    known: list[tuple[pd.DataFrame, int]] = []  # as stored, so that few have to be sorted
    for cell in cells:
        found = _outcomes(cell.evaluations[task].items, metric)
        if found.empty or not np.isfinite(found["total"]).all():
            text = "no outcome" if found.empty else "an outcome that is not finite"
            yield id(cell), f"{task} has {text}"
            continue
        stored = found[["item", "size"]].reset_index(drop=True)
        kind = next((kind for table, kind in known if table.equals(stored)), None)
        if kind is None:
            if stored["item"].duplicated().any():
                yield id(cell), f"{task} has an item twice"
                continue
            ordered = stored.sort_values("item", ignore_index=True)
            kind = next((at for at, one in enumerate(kinds) if one.equals(ordered)), len(kinds))
            if kind == len(kinds):
                kinds.append(ordered)
                members.append([])
            known.append((stored, kind))
        members[kind].append(id(cell))
    if not kinds:
        return
    common = kinds[max(range(len(kinds)), key=lambda kind: len(members[kind]))]
    for kind, keys in zip(kinds, members, strict=True):
        if kind is common:
            continue
        shared = len(set(kind["item"]) & set(common["item"]))
        if shared == len(kind) == len(common):
            text = f"{task} with other tokens in the same windows"
        else:
            text = f"{task} on other items, {shared} of {len(common)} in common"
        yield from ((key, text) for key in keys)


def _stratum(cells: Sequence[CellResult], task: str, metric: str) -> Stratum:
    tables = [_outcomes(cell.evaluations[task].items, metric) for cell in cells]
    order = tables[0]["item"].to_numpy()
    columns = []
    for table in tables:
        if not np.array_equal(table["item"].to_numpy(), order):
            table = table.set_index("item").loc[order]
        columns.append(table["total"].to_numpy(float))
    return Stratum(np.column_stack(columns), tables[0]["size"].to_numpy(float))


def _contradictions(
    cells: Sequence[CellResult], parts: Sequence[Part], strata: Sequence[Stratum]
) -> Iterator[tuple[int, str]]:
    by_mask: dict[str, list[int]] = {}
    for column, cell in enumerate(cells):
        by_mask.setdefault(cell.mask, []).append(column)
    for columns in by_mask.values():
        for (task, _), stratum in zip(parts, strata, strict=True):
            own = stratum.totals[:, columns]
            if (own != own[:, :1]).any():
                text = f"{task} has two different outcomes for the same experts kept"
                yield from ((id(cells[column]), text) for column in columns)
                break
