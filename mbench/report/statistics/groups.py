"""How the cells of a run belong together, and the scores that methods are ranked by."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from mbench.core.evaluation import LOWER_IS_BETTER
from mbench.core.results import UNPRUNED, CellKey, CellResult, Results

RANDOM = "random"
"""The method whose mean over seeds is the reference of every comparison."""


@dataclass(frozen=True)
class Score:
    """An unweighted mean of one metric per task."""

    name: str
    parts: tuple[tuple[str, str], ...]
    """(task, metric)."""
    higher: bool
    """Whether more is better."""

    def value(self, cell: CellResult) -> float | None:
        """The score, or None unless every part has a result."""
        found = [cell.metric(*part) for part in self.parts]
        if any(figure is None for figure in found):
            return None
        return math.fsum(figure.value for figure in found) / len(found)

    def stderr(self, cell: CellResult) -> float:
        """Standard error over the items, which are independent between tasks."""
        found = [cell.metric(*part) for part in self.parts]
        return math.sqrt(math.fsum(figure.stderr**2 for figure in found)) / len(found)


@dataclass(frozen=True)
class Entry:
    """One method at one budget: a single cell, or one per seed."""

    method: str
    cells: tuple[CellResult, ...]

    @property
    def key(self) -> CellKey:
        """Of its first cell, by which a run knows it."""
        return self.cells[0].key

    @property
    def seeded(self) -> bool:
        """Whether the method's results depend on a seed."""
        return self.cells[0].seed is not None

    @property
    def masks(self) -> frozenset[tuple[str, str]]:
        """(router, content hash) of its masks; entries with the same ones are copies."""
        return frozenset((cell.router, cell.mask) for cell in self.cells)


@dataclass(frozen=True)
class Setting:
    """One budget of one model."""

    retain: float
    kept: int
    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class Group:
    """All that may be compared: one model."""

    model: str
    router: str
    """The suite's mode; a method may have its own."""
    unpruned: CellResult | None
    settings: tuple[Setting, ...]
    """By rising retain ratio."""

    @property
    def methods(self) -> tuple[str, ...]:
        """In the order the suite names them; a method has one colour and shape throughout."""
        return tuple(_unique(entry.method for s in self.settings for entry in s.entries))


def arrange(results: Results) -> tuple[Group, ...]:
    """Sort the cells into groups, budgets and methods, all in the order of the run."""
    groups = []
    for model in _unique(cell.model for cell in results.cells):
        cells = [cell for cell in results.cells if cell.model == model]
        pruned = [cell for cell in cells if cell.method != UNPRUNED]
        settings = tuple(
            _setting([cell for cell in pruned if cell.retain == retain])
            for retain in sorted({cell.retain for cell in pruned})
        )
        unpruned = next((cell for cell in cells if cell.method == UNPRUNED), None)
        router = (unpruned or cells[0]).router
        groups.append(Group(model, router, unpruned, settings))
    return tuple(groups)


def _setting(cells: list[CellResult]) -> Setting:
    entries = tuple(
        Entry(method, tuple(cell for cell in cells if cell.method == method))
        for method in _unique(cell.method for cell in cells)
    )
    return Setting(cells[0].retain, cells[0].kept, entries)


def _unique(values: Iterable) -> list:
    return list(dict.fromkeys(values))


def average_score(results: Results) -> Score | None:
    """The suite's average of declared metrics, if it has one."""
    parts = tuple((task, results.task_metrics[task]) for task in results.average_tasks)
    return Score(results.average, parts, higher=True) if parts else None


def perplexity_score(results: Results) -> Score | None:
    """The mean over corpora of log perplexity, which is the mean loss per token in nats."""
    parts = tuple((t, "mean_nll") for t, m in results.task_metrics.items() if m in LOWER_IS_BETTER)
    return Score("Mean log perplexity", parts, higher=False) if parts else None


def primary_score(results: Results) -> Score | None:
    """What methods are ranked by: the average if the suite has one, else log perplexity."""
    return average_score(results) or perplexity_score(results)
