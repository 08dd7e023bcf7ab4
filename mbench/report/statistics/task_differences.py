"""One budget task by task: which methods differ on each task, corrected over all tasks at once."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from mbench.core.evaluation import LOWER_IS_BETTER
from mbench.core.results import CellKey
from mbench.report.statistics.groups import Entry, Setting
from mbench.report.statistics.many_comparisons import holm
from mbench.report.statistics.method_comparison import Sample, p_value, samples
from mbench.report.statistics.pairing import Paired, problem_of
from mbench.report.statistics.resampling import enough_resamples


@dataclass(frozen=True)
class TaskComparison:
    """One task's declared metric; of a perplexity its logarithm, the mean loss per token."""

    figures: Mapping[str, float]
    """Method -> its mean over masks, from best to worst; methods on the same items only."""
    apart: frozenset[frozenset[str]]
    """Pairs of methods that are separated."""
    enough: bool
    """Whether it has rows enough for any two methods to be separated after the correction."""

    @property
    def best(self) -> tuple[str, ...]:
        """The best method and those that are not separated from it; empty without methods."""
        first = next(iter(self.figures), None)
        return tuple(name for name in self.figures if frozenset((first, name)) not in self.apart)


def by_task(
    setting: Setting,
    tasks: Mapping[str, str],
    paired: Mapping[str, Paired[CellKey]],
    uninformative: Collection[str],
    level: float,
) -> dict[str, TaskComparison]:
    """Compare all pairs of methods on each of `tasks` (task -> metric).

    `paired` holds, for each task, the cells of the whole model beside each other; a method with a
    cell that cannot stand there is left out.

    Holm's method corrects over all pairs on all tasks, because a reader looks at all of them.
    Copies of a mask are one method. At a floor (`uninformative`) nothing is separated.
    """
    most = math.comb(len(setting.entries), 2) * len(tasks)
    sampled: dict[str, list[list[tuple[Entry, Sample]]]] = {}
    p: dict[tuple[str, int, int], float] = {}
    rows: dict[str, int] = {}
    for task in tasks:
        own = paired[task].of(cell.key for entry in setting.entries for cell in entry.cells)
        rows[task] = len(own.strata[0].sizes) if own.strata else 0
        fine = (entry for entry in setting.entries if not problem_of(entry, own))
        kinds: dict[frozenset[tuple[str, str]], list[tuple[Entry, Sample]]] = {}
        for entry, sample in samples(fine, own, enough_resamples(most), intervals=False):
            kinds.setdefault(entry.masks, []).append((entry, sample))
        sampled[task] = list(kinds.values())
        for one, other in combinations(range(len(kinds)), 2):
            (_, first), (_, second) = sampled[task][one][0], sampled[task][other][0]
            p[task, one, other] = 1.0 if task in uninformative else p_value(first, second)
    adjusted = zip(p, holm(list(p.values())), strict=True)
    real = [key for key, value in adjusted if value < level]
    found = {}
    for task, metric in tasks.items():
        found[task] = TaskComparison(
            _ordered(sampled[task], lower=metric in LOWER_IS_BETTER),
            frozenset(
                frozenset((a.method, b.method))
                for tested, one, other in real
                if tested == task
                for a, _ in sampled[task][one]
                for b, _ in sampled[task][other]
            ),
            # Of so many signs, all the same is the most that can be seen: 2 of 2^rows.
            not sampled[task] or len(p) * 2.0 ** (1 - rows[task]) < level,
        )
    return found


def _ordered(kinds: Sequence[Sequence[tuple[Entry, Sample]]], *, lower: bool) -> dict[str, float]:
    figures = [(entry.method, sample.value) for kind in kinds for entry, sample in kind]
    return dict(sorted(figures, key=lambda figure: figure[1] if lower else -figure[1]))
