"""Which methods differ on each task of a budget, adjusted for all tasks at once."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from mbench.core.evaluation import LOWER_IS_BETTER
from mbench.core.results import CellKey
from mbench.report.statistics.groups import BudgetEntries, Entry
from mbench.report.statistics.many_comparisons import holm
from mbench.report.statistics.method_comparison import Sample, p_value, samples
from mbench.report.statistics.pairing import Paired, problem_of
from mbench.report.statistics.ranking import LEVEL
from mbench.report.statistics.resampling import enough_resamples


@dataclass(frozen=True)
class TaskComparison:
    """One task's declared metric; of a perplexity its logarithm, the mean loss per token."""

    figures: Mapping[str, float]
    """Method -> its mean over masks, from best to worst; methods on the same items only."""
    different: frozenset[frozenset[str]]
    """Pairs of methods that are significantly different (adjusted)."""
    enough: bool
    """Whether it has enough rows for any difference to be significant after adjustment."""

    @property
    def best(self) -> tuple[str, ...]:
        """The best method and those not significantly different from it; empty without methods."""
        first = next(iter(self.figures), "")
        return tuple(
            name for name in self.figures if frozenset((first, name)) not in self.different
        )


Copies = list[tuple[Entry, Sample]]
"""Methods with equal masks, which are compared as one."""


def compare_by_task(
    budget: BudgetEntries,
    tasks: Mapping[str, str],
    paired: Mapping[str, Paired[CellKey]],
    uninformative: Collection[str],
) -> dict[str, TaskComparison]:
    """Compare all pairs of methods on each of `tasks` (task -> metric).

    `paired` holds, for each task, the paired cells of the whole model; a method with a cell that
    is not comparable is left out.

    Holm's method adjusts for all pairs on all tasks, because a reader looks at all of them. On
    `uninformative` tasks no difference is significant.
    """
    most = math.comb(len(budget.entries), 2) * len(tasks)
    compared = {task: _distinct(budget, paired[task], most) for task in tasks}
    p = {
        (task, i, j): 1.0 if task in uninformative else p_value(methods[i][0][1], methods[j][0][1])
        for task, methods in compared.items()
        for i, j in combinations(range(len(methods)), 2)
    }
    adjusted = dict(zip(p, holm(list(p.values())), strict=True))
    different: dict[str, set[frozenset[str]]] = {task: set() for task in tasks}
    for (task, i, j), value in adjusted.items():
        if value < LEVEL:
            different[task] |= {
                frozenset((first.method, second.method))
                for first, _ in compared[task][i]
                for second, _ in compared[task][j]
            }
    return {
        task: TaskComparison(
            _figures(compared[task], lower=metric in LOWER_IS_BETTER),
            frozenset(different[task]),
            # The most extreme outcome is that all signs agree, with p = 2 / 2^rows.
            not compared[task] or len(p) * 2.0 ** (1 - _rows(budget, paired[task])) < LEVEL,
        )
        for task, metric in tasks.items()
    }


def _at_budget(budget: BudgetEntries, paired: Paired[CellKey]) -> Paired[CellKey]:
    return paired.of(cell.key for entry in budget.entries for cell in entry.cells)


def _rows(budget: BudgetEntries, paired: Paired[CellKey]) -> int:
    """Items or blocks of windows."""
    strata = _at_budget(budget, paired).strata
    return len(strata[0].sizes) if strata else 0


def _distinct(budget: BudgetEntries, paired: Paired[CellKey], most: int) -> list[Copies]:
    """The comparable methods of a budget, those with equal masks together."""
    here = _at_budget(budget, paired)
    comparable = (entry for entry in budget.entries if not problem_of(entry, here))
    by_masks: dict[frozenset[tuple[str, str]], Copies] = {}
    for entry, sample in samples(comparable, here, enough_resamples(most), intervals=False):
        by_masks.setdefault(entry.masks, []).append((entry, sample))
    return list(by_masks.values())


def _figures(methods: Sequence[Copies], *, lower: bool) -> dict[str, float]:
    figures = [(entry.method, sample.value) for copies in methods for entry, sample in copies]
    return dict(sorted(figures, key=lambda figure: figure[1] if lower else -figure[1]))
