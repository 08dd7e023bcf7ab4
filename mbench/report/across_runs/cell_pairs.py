"""The cells of two runs beside each other: which belong together, and their common items."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from mbench.core.errors import MbenchError
from mbench.core.evaluation import evaluation
from mbench.core.results import CellKey, CellResult, Results
from mbench.report.statistics.method_comparison import Sample, samples_of_columns
from mbench.report.statistics.pairing import Paired, Part, pair
from mbench.report.statistics.resampling import Stratum
from mbench.report.words import percent

CellOfRun: TypeAlias = tuple[int, CellKey]
"""0 for the first run, 1 for the second one, and a cell of it."""


@dataclass(frozen=True)
class CellPair:
    """The cells of one comparison: one method at one budget, in either run."""

    model: str
    retain: float
    methods: tuple[str, str]
    cells: tuple[tuple[CellResult, ...], tuple[CellResult, ...]]

    @property
    def label(self) -> str:
        """What messages call it."""
        names = " and ".join(dict.fromkeys(self.methods))
        return f"{self.model} {percent(self.retain)} {names}"

    @property
    def by_seed(self) -> bool:
        """Whether every seed of the one belongs to the same seed of the other."""
        return self.methods[0] == self.methods[1] and len(self.cells[0]) > 1


def cell_pairs(
    names: tuple[str, str],
    runs: tuple[Results, Results],
    methods: tuple[str, str] | None,
    left: list[str],
) -> Iterator[CellPair]:
    """Cells of one model, budget and method in both, or of the two `methods`.

    Appends to `left` what cannot be put together.

    Raises:
        MbenchError: the runs have no cell in common, or a method is in neither.
    """
    by_place: list[dict[tuple[str, float, str], list[CellResult]]] = [{}, {}]
    for index, results in enumerate(runs):
        for cell in results.cells:
            key = (cell.model, cell.retain, cell.method)
            by_place[index].setdefault(key, []).append(cell)
    if methods is not None:
        for name, method, places in zip(names, methods, by_place, strict=True):
            known = list(dict.fromkeys(key[2] for key in places))
            if method not in known:
                raise MbenchError(f"{name} has no method {method!r} (there: {', '.join(known)})")
    anything = False
    for (model, retain, method), cells in by_place[0].items():
        other = methods[1] if methods else method
        others = by_place[1].get((model, retain, other))
        if others is None or (methods is not None and method != methods[0]):
            continue
        if method == other:
            seeds = {cell.seed for cell in cells} & {cell.seed for cell in others}
            cells, others = ([c for c in own if c.seed in seeds] for own in (cells, others))
            cells, others = (sorted(own, key=_seed) for own in (cells, others))
        found = CellPair(model, retain, (method, other), (tuple(cells), tuple(others)))
        anything = True
        twice = [name for name, own in zip(names, found.cells, strict=True) if _repeated(own)]
        if not cells:
            left.append(f"{found.label}: no seed in common")
        elif twice:
            left.append(f"{found.label}: listed twice in {twice[0]}")
        else:
            yield found
    if not anything:
        raise MbenchError(f"{names[0]} and {names[1]} have no model, budget and method in common")


def _seed(cell: CellResult) -> int:
    return -1 if cell.seed is None else cell.seed


def _repeated(cells: Sequence[CellResult]) -> bool:
    return len({cell.seed for cell in cells}) < len(cells)


@dataclass(frozen=True)
class Beside:
    """One score's outcomes of all cells of a model, on the items that both runs have."""

    paired: Paired[CellOfRun]
    problems: Mapping[CellOfRun, str]
    """Why a cell cannot be compared."""

    def columns(self, run: int, pair: CellPair) -> list[int]:
        """Of the pair's cells in that run, all of which must be comparable."""
        return [self.paired.columns[run, cell.key] for cell in pair.cells[run]]

    def value(self, run: int, pair: CellPair) -> float:
        """The mean score of the pair's cells in that run."""
        columns = self.columns(run, pair)
        return float(np.mean([stratum.figures[columns] for stratum in self.paired.strata]))

    def problem(self, pair: CellPair, names: tuple[str, str]) -> str:
        """Why a pair cannot be compared; empty if it can."""
        for run, cells in enumerate(pair.cells):
            for cell in cells:
                if (run, cell.key) in self.problems:
                    return f"{self.problems[run, cell.key]} in {names[run]}"
                if (run, cell.key) not in self.paired.columns:
                    return f"no result in {names[run]}"
        return ""


def put_beside(runs: tuple[Results, Results], model: str, parts: Sequence[Part]) -> Beside | str:
    """Restrict the cells of a model to the items that both runs have, or say that there is none."""
    problems: dict[CellOfRun, str] = {}
    comparable: list[list[CellResult]] = []
    for run, results in enumerate(runs):
        cells = {cell.key: cell for cell in results.cells if cell.model == model}
        within_run = pair(cells, parts)
        problems |= {(run, key): text for key, text in within_run.problems.items()}
        comparable.append([cell for key, cell in cells.items() if key in within_run.columns])
    common = {}
    if all(comparable):
        # Within a run, all have the same items.
        for part in parts:
            common[part] = _items(comparable[0][0], *part) & _items(comparable[1][0], *part)
            if not common[part]:
                return "the runs have no item in common"
    restricted = {
        (run, cell.key): _on_items(cell, run, common)
        for run, cells in enumerate(comparable)
        for cell in cells
        if common
    }
    paired = pair(restricted, parts)
    return Beside(paired, problems | dict(paired.problems))


def _items(cell: CellResult, task: str, metric: str) -> set[str]:
    columns = cell.evaluations[task].columns
    if metric == "mean_nll":
        return set(columns["item"])
    # In a group of tasks, not every item has every metric.
    return set(columns["item"][~np.isnan(columns[metric])])


def _on_items(cell: CellResult, run: int, common: Mapping[Part, set[str]]) -> CellResult:
    """A cell of one run on the items that both have.

    Equal masks must give equal outcomes within a run only: between two runs it is the change that
    one asks for. So the run becomes part of the mask's name.
    """
    evaluations = {}
    for (task, _), items in common.items():
        table = cell.evaluations[task].items
        there = table["item"].isin(items)
        whole = bool(there.all())
        evaluations[task] = cell.evaluations[task] if whole else evaluation(task, table[there])
    return replace(cell, mask=f"{cell.mask} of {run}", evaluations=evaluations)


def paired_samples(
    pairs: Sequence[CellPair], beside: Beside, resamples: int
) -> list[tuple[Sample, Sample]]:
    """Both sides of every pair; seed by seed, the second is the differences, the first is zero.

    For that, columns of zeros and of the seeds' differences are put beside the cells' own.
    """
    if not pairs:
        return []
    strata = beside.paired.strata
    zero = strata[0].totals.shape[1]
    seeds: list[tuple[int, int]] = []
    sides: list[list[int]] = []
    for each in pairs:
        columns = [beside.columns(run, each) for run in (0, 1)]
        if each.by_seed:
            begin = zero + 1 + len(seeds)
            seeds += zip(*columns, strict=True)
            columns = [[zero], list(range(begin, zero + 1 + len(seeds)))]
        sides += columns
    firsts, seconds = ([seed[side] for seed in seeds] for side in (0, 1))
    extended = tuple(
        Stratum(
            np.column_stack(
                [s.totals, np.zeros(len(s.sizes)), s.totals[:, seconds] - s.totals[:, firsts]]
            ),
            s.sizes,
        )
        for s in strata
    )
    drawn = iter(samples_of_columns(sides, extended, resamples))
    return list(zip(drawn, drawn, strict=True))
