"""Which cells of two runs are compared with each other, and their outcomes on common items."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from mbench.core.cell_results import UNPRUNED, CellKey, CellResult
from mbench.core.errors import MbenchError, did_you_mean
from mbench.core.evaluation import evaluation
from mbench.core.results import Results
from mbench.report.across_runs.same_outcomes import agree_in_all
from mbench.report.statistics.pairing import Paired, Part, pair
from mbench.report.statistics.pairwise import Pairwise, pairwise
from mbench.report.words import method_name, pruned

CellOfRun: TypeAlias = tuple[int, CellKey]
"""(0 for the first run or 1 for the second, key of the cell)."""

Place: TypeAlias = tuple[str, float, str]
"""(model, retain ratio, method)."""


@dataclass(frozen=True)
class TwoRuns:
    """Two runs, and what messages call them."""

    names: tuple[str, str]
    results: tuple[Results, Results]

    @property
    def tasks(self) -> dict[str, str]:
        """The tasks that both have, each with the metric that the first one declares."""
        first, second = self.results
        return {t: m for t, m in first.task_metrics.items() if t in second.task_metrics}


@dataclass(frozen=True)
class CellPair:
    """The cells of one comparison: a method at a budget in the first run and in the second."""

    model: str
    retain: float
    methods: tuple[str, str]
    cells: tuple[tuple[CellResult, ...], tuple[CellResult, ...]]

    @property
    def label(self) -> str:
        """What messages call it."""
        names = " and ".join(dict.fromkeys(map(method_name, self.methods)))
        return f"{self.model} {pruned(self.retain)}, {names}"

    @property
    def by_seed(self) -> bool:
        """Whether the cells are compared seed by seed."""
        return self.methods[0] == self.methods[1] and len(self.cells[0]) > 1


def cell_pairs(
    runs: TwoRuns, methods: tuple[str, str] | None
) -> tuple[list[CellPair], dict[str, str]]:
    """Cells of one model, budget and method in both, or of the two `methods`.

    Returns the pairs, and label -> reason for cells that cannot be paired.

    Raises:
        MbenchError: the runs have no cell in common, or a method is in neither.
    """
    firsts, seconds = (_by_place(results) for results in runs.results)
    if methods is not None:
        for name, method, places in zip(runs.names, methods, (firsts, seconds), strict=True):
            _require_method(name, method, places)
    pairs: list[CellPair] = []
    problems: dict[str, str] = {}
    for (model, retain, method), cells in firsts.items():
        if methods is not None and method != methods[0]:
            continue
        other = methods[1] if methods else method
        for place, theirs in seconds.items():
            if place[0] != model or place[2] != other or not _same_budget(method, retain, place):
                continue
            both: tuple[Sequence[CellResult], Sequence[CellResult]] = (cells, theirs)
            if method == other:
                both = _same_seeds(*both)
            budget = min(retain, place[1])
            found = CellPair(model, budget, (method, other), (tuple(both[0]), tuple(both[1])))
            _sort_out(found, runs, pairs, problems)
    if not pairs and not problems:
        names = " and ".join(runs.names)
        raise MbenchError(f"{names} have no model, budget and method in common")
    return pairs, problems


def _same_budget(method: str, retain: float, other: Place) -> bool:
    """Whether two cells have one budget; the unpruned model is compared with every one."""
    return retain == other[1] or (UNPRUNED in (method, other[2]) and method != other[2])


def _sort_out(
    pair: CellPair, runs: TwoRuns, pairs: list[CellPair], problems: dict[str, str]
) -> None:
    twice = [run for run, side in zip(runs.names, pair.cells, strict=True) if _repeated(side)]
    if not pair.cells[0]:
        problems[pair.label] = "no seed in common"
    elif twice:
        problems[pair.label] = f"listed twice in {twice[0]}"
    else:
        pairs.append(pair)


def _by_place(results: Results) -> dict[Place, list[CellResult]]:
    by_place: dict[Place, list[CellResult]] = {}
    for cell in results.cells:
        by_place.setdefault((cell.model, cell.retain, cell.method), []).append(cell)
    return by_place


def _require_method(run: str, method: str, places: Iterable[Place]) -> None:
    known = list(dict.fromkeys(name for _, _, name in places))
    if method not in known:
        hint = did_you_mean(method, known)
        raise MbenchError(f"{run} has no method {method!r}{hint} (there: {', '.join(known)})")


def _same_seeds(
    cells: Sequence[CellResult], others: Sequence[CellResult]
) -> tuple[list[CellResult], list[CellResult]]:
    """The cells whose seed both sides have, in the order of the seeds."""
    seeds = {cell.seed for cell in cells} & {cell.seed for cell in others}
    first, second = (
        sorted((cell for cell in side if cell.seed in seeds), key=_seed) for side in (cells, others)
    )
    return first, second


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
    tasks: tuple[str, ...]
    """Of the score."""
    one_model: bool
    """Whether both runs computed the same weights in the same way."""
    cells: Mapping[CellOfRun, CellResult]
    """With the outcomes of these items alone."""

    def columns(self, run: int, pair: CellPair) -> list[int]:
        """Of the pair's cells in that run, all of which must be comparable."""
        return [self.paired.columns[run, cell.key] for cell in pair.cells[run]]

    def value(self, run: int, pair: CellPair) -> float:
        """The mean score of the pair's cells in that run."""
        columns = self.columns(run, pair)
        return float(np.mean([stratum.figures[columns] for stratum in self.paired.strata]))

    def identical(self, pair: CellPair) -> bool:
        """Whether both sides have the same masks on the same model, with the same outcome of every
        item up to rounding, so that there is no difference that more items could show.

        Two masks that give the same answers are none such: on other items they may not.
        """
        first, second = pair.cells
        masks = [[(cell.mask, cell.router) for cell in side] for side in pair.cells]
        if not self.one_model or masks[0] != masks[1]:
            return False
        return all(
            agree_in_all(*(cell.evaluations[task] for cell in both))
            for one, two in zip(first, second, strict=True)
            for both in [(self.cells[0, one.key], self.cells[1, two.key])]
            for task in self.tasks
        )

    def problem(self, pair: CellPair, names: tuple[str, str]) -> str:
        """Why a pair cannot be compared; empty if it can."""
        for run, cells in enumerate(pair.cells):
            for cell in cells:
                if (run, cell.key) in self.problems:
                    return f"{self.problems[run, cell.key]} in {names[run]}"
                if (run, cell.key) not in self.paired.columns:
                    return self._lack(cell, names[run])
        return ""

    def _lack(self, cell: CellResult, run: str) -> str:
        """Why a cell of the run has no outcome of all items."""
        if any(task in cell.early for task in self.tasks):
            return (
                f"early in {run}, and only whole evaluations are compared here; its page and"
                " verdict.json compare early methods with each other"
            )
        if any(cell.task_status(task).status == "left out" for task in self.tasks):
            return f"not asked for in {run}"
        return f"no result in {run}"


def put_beside(runs: TwoRuns, model: str, parts: Sequence[Part]) -> Beside | str:
    """Pair the cells of a model on the items that both runs have; a reason if there are none."""
    problems: dict[CellOfRun, str] = {}
    comparable: list[list[CellResult]] = []
    for run, results in enumerate(runs.results):
        cells = {cell.key: cell for cell in results.cells if cell.model == model}
        within_run = pair(cells, parts)
        problems |= {(run, key): text for key, text in within_run.problems.items()}
        comparable.append([cell for key, cell in cells.items() if key in within_run.columns])
    common = {}
    if all(comparable):
        # Within a run, comparable cells have the same items.
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
    tasks = tuple(task for task, _ in parts)
    models = [results.provenance.models[model] for results in runs.results]
    one_model = len({(m.content, m.dtype, m.attention) for m in models}) == 1
    return Beside(paired, problems | dict(paired.problems), tasks, one_model, restricted)


def _items(cell: CellResult, task: str, metric: str) -> set[str]:
    columns = cell.evaluations[task].columns
    if metric == "mean_nll":
        return set(columns["item"])
    # In a group of tasks, not every item has every metric.
    return set(columns["item"][~np.isnan(columns[metric])])


def _on_items(cell: CellResult, run: int, common: Mapping[Part, set[str]]) -> CellResult:
    """A cell of one run, restricted to the items that both have.

    Equal masks must give equal outcomes within a run, but may differ between runs, which is what
    is compared. The run therefore becomes part of the mask's name.
    """
    evaluations = {}
    for (task, _), items in common.items():
        table = cell.evaluations[task].items
        there = table["item"].isin(items)
        whole = bool(there.all())
        evaluations[task] = cell.evaluations[task] if whole else evaluation(task, table[there])
    return replace(cell, mask=f"{cell.mask} of {run}", evaluations=evaluations)


def paired_differences(pairs: Sequence[CellPair], beside: Beside) -> Pairwise:
    """Second minus first [pairs].

    Of a pair that is compared seed by seed it is the mean of the seeds' differences: a column each,
    appended to those of the cells, beside a column of zeros.
    """
    strata = beside.paired.strata
    found = []
    for each in pairs:
        first, second = (beside.columns(run, each) for run in (0, 1))
        if each.by_seed:
            by_seed = [
                replace(
                    s,
                    totals=np.column_stack(
                        [np.zeros(s.units), s.totals[:, second] - s.totals[:, first]]
                    ),
                )
                for s in strata
            ]
            columns = [[0], list(range(1, len(first) + 1))]
            found.append(pairwise(by_seed, columns).at([(1, 0)]))
        else:
            found.append(pairwise(strata, [first, second]).at([(1, 0)]))
    return Pairwise.joined(found)
