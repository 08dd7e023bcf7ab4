"""Two methods of one budget, of which at least one was evaluated on some items only.

What is told of them is told of items like these, as in whole evaluations, and from the items that
both have. With n of N units drawn at random, d the differences there and r those of d that were not
predicted from masks with all items, the estimated mean difference has the variance
var(r) (1/n - 1/N) + var(d) / N: with nothing predicted that of the plain paired test on n items,
var(d) / n, and never more; with all items that of the ordinary test.

Over several tasks, a look of one method is a look at all of its tasks after the same share of their
items: else each task could have stopped where it happened to say most. So a score is taken after
the least share that any early cell has of any of its tasks, which is one of few (`SHARES`), each
with its part of the error (`error_share`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from mbench.core.cell_results import CellResult
from mbench.core.early import NOT_FINITE, TOO_FEW
from mbench.report.statistics.difference_moments import Moments, moments_of
from mbench.report.statistics.groups import BudgetEntries, Entry, Group
from mbench.report.statistics.pairwise import Pairwise
from mbench.report.statistics.scores import Score
from mbench.report.statistics.strata import Stratum, pairs
from mbench.run.early.adjustment import adjusted
from mbench.run.early.known import MOST_PREDICTORS
from mbench.run.early.population import Population
from mbench.run.looks import SHARES, error_share

if TYPE_CHECKING:
    import pandas as pd

WITHOUT_ITEMS = "early: the items that were evaluated are not in these results"


@dataclass(frozen=True)
class Sampled:
    """A task's cells after one share of its items: each [n, cells], on the same units."""

    outcomes: np.ndarray
    residuals: np.ndarray
    """By how much they differ from what was predicted; 0 of cells with all items."""
    means: np.ndarray
    """[cells], estimated over all units."""
    units: int
    """In all."""
    most: float | None
    """The most that a unit can differ by; None where there is no bound."""
    cluster: np.ndarray | None
    """int64 [n], the document of each unit; None where every unit is independent."""


class EarlyPairs:
    """The comparisons of a budget's methods by one score."""

    def __init__(self, group: Group, budget: BudgetEntries, score: Score) -> None:
        """The unpruned model has all items."""
        self._group, self._retain, self._score = group, budget.retain, score
        cells = [cell for entry in budget.entries for cell in entry.cells]
        assert group.unpruned is not None
        self._unpruned = group.unpruned
        known = [cell for cell in cells if all(_known(cell, task) for task, _ in score.parts)]
        self._cells = [self._unpruned, *known]
        self._column = {cell.key: at for at, cell in enumerate(self._cells)}
        self._stages = {cell.key: stage_of(cell, score) for cell in [self._unpruned, *cells]}
        self._sampled = cache(self._sample)
        self._seeds = cache(self._spread_of_seeds)

    def share(self, first: Entry, second: Entry) -> float:
        """Of the error that all looks at two methods may make together, the part of this one."""
        designs = (self._unpruned.looked.get(task) for task, _ in self._score.parts)
        looks = max((_looks(design) for design in designs if design is not None), default=2)
        return error_share(looks, self._stage(first, second) - len(SHARES) + looks - 1)

    def difference(self, first: Entry, second: Entry) -> Pairwise | str:
        """First minus second, the mean over the score's tasks; or why nothing can be told."""
        if any(cell.key not in self._column for cell in (*first.cells, *second.cells)):
            return WITHOUT_ITEMS
        stage = self._stage(first, second)
        columns = [[self._column[cell.key] for cell in entry.cells] for entry in (first, second)]
        tasks = []
        for part in self._score.parts:
            sampled = self._sampled(part, stage)
            if isinstance(sampled, str):
                return sampled
            tasks.append(sampled)
        found = Moments.mean_of([_difference(each, *columns) for each in tasks])
        found = found.plus_seeds([self._seeds(stage, tuple(own)) for own in columns])
        if not (math.isfinite(found.mean) and math.isfinite(found.variance)):
            return f"early: {TOO_FEW if math.isfinite(found.mean) else NOT_FINITE}"
        each = (found.mean, found.mean, found.variance, found.freedom, found.skewness)
        return Pairwise(*(np.array([value]) for value in each))

    def _spread_of_seeds(self, stage: int, own: tuple[int, ...]) -> tuple[float, float, int]:
        """Of one method: the variance between its masks, what of it items explain, and its masks.

        As in `pairwise`: nothing is explained of two masks, whose variance is too uncertain.
        """
        count = len(own)
        if count < 2:
            return 0.0, 0.0, count
        found = (self._sampled(part, stage) for part in self._score.parts)
        tasks = [each for each in found if isinstance(each, Sampled)]
        between = float(np.mean([task.means[list(own)] for task in tasks], 0).var(ddof=1))
        if count == 2:
            return between, 0.0, count
        variances = [
            Moments.mean_of([_difference(task, [own[a]], [own[b]]) for task in tasks]).variance
            for a, b in pairs(count)
        ]
        return between, float(np.mean(variances)) / 2, count

    def _stage(self, *entries: Entry) -> int:
        stages = [self._stages[cell.key] for entry in entries for cell in entry.cells]
        return min(stage for stage in stages if stage is not None)

    def _sample(self, part: tuple[str, str], stage: int) -> Sampled | str:
        task, metric = part
        full, design = self._unpruned.evaluations[task].items, self._unpruned.looked.get(task)
        if design is None and any(task in cell.early for cell in self._cells):
            return WITHOUT_ITEMS
        if design is not None:  # in the order of looks
            design = design.set_index("item").loc[full["item"]]
        unit = np.arange(len(full)) if design is None else design["unit"].to_numpy()
        population = Population(full, unit, metric)
        chosen = np.ones(len(full), bool)
        if design is not None:
            chosen = design["look"].to_numpy() < looks_at(_looks(design), stage)
        sample = np.unique(unit[chosen])
        values = np.full((population.count, len(self._cells)), np.nan)
        exact = np.array([self._stages[cell.key] is None for cell in self._cells])
        for at, cell in enumerate(self._cells):
            values[:, at] = _parts(population, cell, task)
        outcomes = values[sample]
        means, residuals = values.mean(0), np.zeros_like(outcomes)
        early = ~exact & np.isfinite(outcomes).all(0)
        if len(sample) < population.count and early.any():
            rng = np.random.default_rng(len(sample))
            predictors = self._predictors(population, task)
            found = adjusted(outcomes[:, early], sample, predictors, rng)
            means[early], residuals[:, early] = found.means, found.residuals
        cluster = None
        if population.of_text and "document" in full:
            cluster = population.documents[sample]
            tokens = np.bincount(
                np.unique(cluster, return_inverse=True)[1], population.size[sample]
            )
            if too_few := Stratum(tokens[:, None], tokens, "documents").too_few():
                return f"early: {too_few}"
        most = population.most(sample, outcomes)
        return Sampled(outcomes, residuals, means, population.count, most, cluster)

    def _predictors(self, population: Population, task: str) -> np.ndarray:
        """float64 [units, p]: what the unpruned model and masks with all items tell, of the nearest
        budgets first; none that is early on another task of the score."""
        whole: dict[tuple[str, str], CellResult] = {}
        for cell in self._group.cells.values():
            judged = self._stages.get(cell.key) is not None
            if task in cell.evaluations and cell.mask != self._unpruned.mask and not judged:
                whole.setdefault((cell.mask, cell.router), cell)
        nearest = sorted(whole.values(), key=lambda cell: abs(cell.retain - self._retain))
        cells = [self._unpruned, *nearest[:MOST_PREDICTORS]]
        columns = [population.told_by(cell.evaluations[task].items) for cell in cells]
        return np.concatenate([*columns, population.size[:, None]], 1)


def looks_at(looks: int, stage: int) -> int:
    """After how many of a task's looks it has the share of its items that a stage asks for."""
    return max(1, stage - (len(SHARES) - (looks - 1)))


def stage_of(cell: CellResult, score: Score) -> int | None:
    """The number of the share, from 1, that a cell has of every task; None if it has all items."""
    figures = [cell.early[task] for task, _ in score.parts if task in cell.early]
    return min((own.look + len(SHARES) - (own.looks - 1) for own in figures), default=None)


def _looks(design: pd.DataFrame) -> int:
    return int(design["look"].max()) + 1


def _known(cell: CellResult, task: str) -> bool:
    return task in cell.evaluations or task in cell.looked


def _parts(population: Population, cell: CellResult, task: str) -> np.ndarray:
    """float64 [units]; NaN of those that the cell was not evaluated on."""
    found = np.full(population.count, np.nan)
    if task in cell.evaluations:
        table = cell.evaluations[task].items
    else:
        table = cell.looked[task].rename(columns={"value": population.column})
    units, parts = population.parts(table)
    found[units] = parts
    return found


def _difference(task: Sampled, first: Sequence[int], second: Sequence[int]) -> Moments:
    outcomes, residuals = (
        array[:, first].mean(1) - array[:, second].mean(1)
        for array in (task.outcomes, task.residuals)
    )
    mean = float(task.means[first].mean() - task.means[second].mean())
    return moments_of(mean, outcomes, residuals, task.units, task.most, task.cluster)
