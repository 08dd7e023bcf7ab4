"""Pairs the outcomes of many cells on the same items, and finds the cells that do not fit."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import numpy as np

from mbench.core.cell_results import CellKey, CellResult
from mbench.core.evaluation import PERPLEXITY_METRICS, WEIGHT
from mbench.report.statistics.groups import Entry
from mbench.report.statistics.strata import Stratum

K = TypeVar("K", bound=Hashable)
"""How cells are identified: within one run by their keys."""

Part = tuple[str, str]
"""(task, metric)."""


def to_part(task: str, metric: str) -> Part:
    """The metric that is compared: for perplexities, their logarithm."""
    return task, "mean_nll" if metric in PERPLEXITY_METRICS else metric


@dataclass(frozen=True)
class Paired(Generic[K]):
    """Cells on the same items: a stratum per part, with a column per cell.

    The rows of a stratum are items or, for perplexities, documents.
    """

    strata: tuple[Stratum, ...]
    columns: Mapping[K, int]
    """Cell -> its column."""
    problems: Mapping[K, str]
    """Cell -> why it cannot be compared."""

    def columns_of(self, cells: Iterable[K]) -> list[int] | None:
        """The cells' columns; None unless all of them have one."""
        columns = [self.columns.get(cell) for cell in cells]
        present = [column for column in columns if column is not None]
        return present if len(present) == len(columns) else None

    def of(self, cells: Iterable[K]) -> Paired[K]:
        """The pairing restricted to those of `cells` that are in it."""
        kept = [cell for cell in cells if cell in self.columns]
        columns = [self.columns[cell] for cell in kept]
        strata = tuple(replace(s, totals=s.totals[:, columns]) for s in self.strata) if kept else ()
        by_cell = {cell: column for column, cell in enumerate(kept)}
        return Paired(strata, by_cell, self.problems)


def pair(cells: Mapping[K, CellResult], parts: Sequence[Part]) -> Paired[K]:
    """Pair the cells that have every part, item by item.

    The items of a task are those that most cells have (the first ones, if equally many). A cell
    with other items, with an item twice, with other tokens per window or with outcomes that are
    not finite is left out and listed in `problems`; so are cells with equal masks under one router
    mode but unequal outcomes, because one of them must be wrong.
    """
    complete = {
        key: cell for key, cell in cells.items() if all(cell.metric(*part) for part in parts)
    }
    problems: dict[K, str] = {}
    for part in parts:
        for key, text in _strangers(complete, *part):
            problems.setdefault(key, text)
    alike = {key: cell for key, cell in complete.items() if key not in problems}
    strata = tuple(_stratum(list(alike.values()), *part) for part in parts) if alike else ()
    contradicting = dict(_contradictions(alike, parts, strata))
    columns = [at for at, key in enumerate(alike) if key not in contradicting]
    kept = [key for key in alike if key not in contradicting]
    if contradicting:
        strata = tuple(replace(s, totals=s.totals[:, columns]) for s in strata)
    return Paired(
        strata if kept else (),
        {key: column for column, key in enumerate(kept)},
        problems | contradicting,
    )


def join(parts: Sequence[Paired[K]]) -> Paired[K]:
    """The cells that every part has, on the items of all of them."""
    problems: dict[K, str] = {}
    for part in parts:
        problems = dict(part.problems) | problems
    shared = [c for c in parts[0].columns if all(c in part.columns for part in parts)]
    kept = [part.of(shared) for part in parts]
    return Paired(
        tuple(stratum for part in kept for stratum in part.strata),
        {cell: column for column, cell in enumerate(shared)},
        problems,
    )


def problem_of(entry: Entry, paired: Paired[CellKey]) -> str:
    """Why a method cannot be compared although it is complete; empty if it can."""
    seeds = [cell.seed for cell in entry.cells]
    twice = [seed for seed in seeds if seeds.count(seed) > 1]
    if twice:
        return "it is listed twice" if twice[0] is None else f"seed {twice[0]} is listed twice"
    for cell in entry.cells:
        if cell.key in paired.problems:
            seed = "" if cell.seed is None else f"seed {cell.seed}: "
            return seed + paired.problems[cell.key]
    return ""


@dataclass(frozen=True)
class _Outcomes:
    """One cell's outcomes on one task; plain arrays, because a page needs hundreds of them."""

    items: np.ndarray
    totals: np.ndarray
    sizes: np.ndarray

    def ordered(self) -> _Outcomes:
        order = np.argsort(self.items, kind="stable")
        return _Outcomes(self.items[order], self.totals[order], self.sizes[order])

    def on_same_items(self, other: _Outcomes) -> bool:
        return np.array_equal(self.items, other.items) and np.array_equal(self.sizes, other.sizes)


def _outcomes(cell: CellResult, task: str, metric: str) -> _Outcomes:
    columns = cell.evaluations[task].columns
    items = columns["item"]
    if metric == "mean_nll":
        return _Outcomes(items, columns["nll"], columns["tokens"])
    sizes = columns.get(WEIGHT, np.ones(len(items)))
    totals = columns[metric] * sizes
    there = ~np.isnan(totals)  # in a group of tasks, not every item has every metric
    if there.all():
        return _Outcomes(items, totals, sizes)
    return _Outcomes(items[there], totals[there], sizes[there])


def _strangers(cells: Mapping[K, CellResult], task: str, metric: str) -> Iterator[tuple[K, str]]:
    """Cells whose outcomes on a task do not fit those of most others, with the reason."""
    item_sets: list[_Outcomes] = []  # one of each distinct set of items, ordered by item
    members: list[list[K]] = []
    known: list[tuple[_Outcomes, int]] = []  # as stored, so that few have to be ordered
    for key, cell in cells.items():
        outcomes = _outcomes(cell, task, metric)
        if not len(outcomes.items) or not np.isfinite(outcomes.totals).all():
            text = "an outcome that is not finite" if len(outcomes.items) else "no outcome"
            yield key, f"{task} has {text}"
            continue
        at = next((at for stored, at in known if stored.on_same_items(outcomes)), None)
        if at is None:
            ordered = outcomes.ordered()
            if (ordered.items[1:] == ordered.items[:-1]).any():
                yield key, f"{task} has an item twice"
                continue
            same = (at for at, items in enumerate(item_sets) if items.on_same_items(ordered))
            at = next(same, None)
            if at is None:
                at = len(item_sets)
                item_sets.append(ordered)
                members.append([])
            known.append((outcomes, at))
        members[at].append(key)
    if item_sets:
        yield from _minorities(item_sets, members, task)


def _minorities(
    item_sets: Sequence[_Outcomes], members: Sequence[Sequence[K]], task: str
) -> Iterator[tuple[K, str]]:
    """Cells whose items are not those that most cells have, with the reason."""
    common = max(range(len(item_sets)), key=lambda at: len(members[at]))
    most = item_sets[common]
    for at, (items, keys) in enumerate(zip(item_sets, members, strict=True)):
        if at == common:
            continue
        shared = len(set(items.items) & set(most.items))
        if shared == len(items.items) == len(most.items):
            text = f"{task} with other tokens in the same windows"
        else:
            text = f"{task} on other items, {shared} of {len(most.items)} in common"
        yield from ((key, text) for key in keys)


def _stratum(cells: Sequence[CellResult], task: str, metric: str) -> Stratum:
    first, *others = (_outcomes(cell, task, metric) for cell in cells)
    columns = [first.totals]
    columns += [
        other.totals if other.on_same_items(first) else _reordered(other, first) for other in others
    ]
    totals, sizes = np.column_stack(columns), first.sizes
    if metric != "mean_nll":
        return Stratum(totals, sizes)
    # Windows of one document are alike: what is independent is the document.
    documents = cells[0].evaluations[task].columns["document"]
    _, place = np.unique(documents, return_inverse=True)
    summed = np.zeros((place.max() + 1, totals.shape[1]))
    np.add.at(summed, place, totals)
    return Stratum(summed, np.bincount(place, sizes), "documents")


def _reordered(outcomes: _Outcomes, like: _Outcomes) -> np.ndarray:
    """The totals in the order of the items of `like`."""
    by_item = dict(zip(outcomes.items, outcomes.totals, strict=True))
    return np.array([by_item[item] for item in like.items])


def _contradictions(
    cells: Mapping[K, CellResult], parts: Sequence[Part], strata: Sequence[Stratum]
) -> Iterator[tuple[K, str]]:
    """Cells with the same model, mask and router mode whose outcomes are not the same."""
    keys = list(cells)
    by_mask: dict[tuple[str, str, str], list[int]] = {}
    for column, cell in enumerate(cells.values()):
        by_mask.setdefault((cell.model, cell.router, cell.mask), []).append(column)
    for columns in by_mask.values():
        for (task, _), stratum in zip(parts, strata, strict=True):
            totals = stratum.totals[:, columns]
            if (totals != totals[:, :1]).any():
                text = f"{task} has two different outcomes for the same experts kept"
                yield from ((keys[column], text) for column in columns)
                break
