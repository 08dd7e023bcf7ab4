"""The cells of a run grouped by model, budget and method."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction

from mbench.core.cell_results import UNPRUNED, CellKey, CellResult
from mbench.core.results import Results
from mbench.report.statistics.seed_summaries import Summary, summarize

RANDOM = "random"
"""The method whose mean over seeds is the baseline."""


@dataclass(frozen=True)
class Entry:
    """One method at one budget: a single cell, or one per seed."""

    method: str
    cells: tuple[CellResult, ...]

    @property
    def key(self) -> CellKey:
        """The key of its first cell."""
        return self.cells[0].key

    @property
    def seeded(self) -> bool:
        """Whether the method's results depend on a seed."""
        return self.cells[0].seed is not None

    @property
    def masks(self) -> frozenset[tuple[tuple[str, str, str], Fraction]]:
        """(model, router, content hash) of its masks, and the share of its seeds that give each;
        entries with the same ones are copies."""
        counts = Counter((cell.model, cell.router, cell.mask) for cell in self.cells)
        return frozenset((mask, Fraction(n, len(self.cells))) for mask, n in counts.items())

    def summary(self, figure: Callable[[CellResult], float | None]) -> Summary | None:
        """A figure over its cells; None unless each of them has it."""
        values = [value for value in map(figure, self.cells) if value is not None]
        return summarize(values) if len(values) == len(self.cells) else None


@dataclass(frozen=True)
class BudgetEntries:
    """One budget of one model, and the methods at it."""

    retain: float
    kept: int
    """Experts kept per layer."""
    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class Group:
    """The cells of one model, which may be compared with each other."""

    model: str
    router: str
    """The suite's mode; a method may have its own."""
    unpruned: CellResult | None
    budgets: tuple[BudgetEntries, ...]
    """From few to many pruned experts."""

    @property
    def methods(self) -> tuple[str, ...]:
        """In the order of the suite, which determines their colours and shapes."""
        return tuple(_unique(entry.method for b in self.budgets for entry in b.entries))

    @property
    def cells(self) -> dict[CellKey, CellResult]:
        """The unpruned model first, then every cell of every budget."""
        pruned = [cell for b in self.budgets for entry in b.entries for cell in entry.cells]
        cells = [self.unpruned, *pruned] if self.unpruned else pruned
        return {cell.key: cell for cell in cells}


def arrange(results: Results) -> tuple[Group, ...]:
    """Group the cells; models and methods keep the order of the run."""
    groups = []
    for model in _unique(cell.model for cell in results.cells):
        cells = [cell for cell in results.cells if cell.model == model]
        pruned = [cell for cell in cells if cell.method != UNPRUNED]
        budgets = tuple(
            _budget([cell for cell in pruned if cell.retain == retain])
            for retain in sorted({cell.retain for cell in pruned}, reverse=True)
        )
        unpruned = next((cell for cell in cells if cell.method == UNPRUNED), None)
        router = (unpruned or cells[0]).router
        groups.append(Group(model, router, unpruned, budgets))
    return tuple(groups)


def _budget(cells: list[CellResult]) -> BudgetEntries:
    entries = tuple(
        Entry(method, tuple(cell for cell in cells if cell.method == method))
        for method in _unique(cell.method for cell in cells)
    )
    return BudgetEntries(cells[0].retain, cells[0].kept, entries)


def _unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
