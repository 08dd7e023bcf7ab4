"""Two methods compared on the same items, seeds included."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mbench.report.statistics import stats
from mbench.report.statistics.groups import Entry
from mbench.report.statistics.pairing import Paired


@dataclass(frozen=True)
class Sample:
    """A method all of whose masks are paired, with what its comparisons need."""

    entry: Entry
    figures: np.ndarray
    """[S] the observed score of each of its masks."""
    outcomes: np.ndarray | None
    """[items] right (1) or wrong (0), of a single mask on a single task; else None."""
    deviations: np.ndarray | None
    """[R] bootstrap deviations of its mean, errors of seeds included; None where no interval is
    wanted."""
    null: np.ndarray | None
    """[R] sign flips of its mean, errors of seeds included; None where `factor` is there."""
    factor: np.ndarray | None
    """[K] of its mean, from `stats.sign_factor`; None where a task has few items."""
    seed_error: float
    """Standard error that comes from having few seeds."""

    @cached_property
    def value(self) -> float:
        """The mean over its masks."""
        return float(self.figures.mean())


def samples(
    entries: Iterable[Entry], paired: Paired, resamples: int, *, intervals: bool = True
) -> list[Sample]:
    """The entries all of whose cells are paired; equal results give equal draws."""
    if not paired.strata:
        return []
    rng = np.random.default_rng(0)
    boot = stats.bootstrap(paired.strata, rng, resamples) if intervals else None
    factor = stats.sign_factor(paired.strata)
    # Of few items p-values are counted from draws, so that more of them have to be drawn.
    flips = None if factor is not None else stats.sign_flips(paired.strata, rng, 2 * resamples)
    observed = np.mean([stratum.figures for stratum in paired.strata], axis=0)
    found = []
    for entry in entries:
        columns = [paired.columns.get(id(cell)) for cell in entry.cells]
        if None in columns:
            continue
        figures = observed[columns]
        outcomes = None
        if len(columns) == len(paired.strata) == 1:
            own = paired.strata[0].totals[:, columns[0]]
            outcomes = own if np.isin(own, (0, 1)).all() else None
        own = (factor if flips is None else flips)[:, columns]
        # Of draws, the variance between columns; of factors, the sum of their squares.
        between = own.var(axis=1, ddof=1) if len(columns) > 1 else np.zeros(len(own))
        error = stats.seed_error(figures, float(between.sum() if flips is None else between.mean()))
        drawn = null = None
        if boot is not None:
            drawn = boot[:, columns].mean(axis=1) + _student(rng, error, figures, len(boot))
        if flips is not None:
            null = own.mean(axis=1) + _student(rng, error, figures, len(flips))
        mean = None if factor is None else own.mean(axis=1)
        found.append(Sample(entry, figures, outcomes, drawn, null, mean, error))
    return found


def _student(
    rng: np.random.Generator, error: float, figures: np.ndarray, count: int
) -> np.ndarray | float:
    return error * rng.standard_t(len(figures) - 1, count) if len(figures) > 1 else 0.0


def difference(first: Sample, second: Sample) -> stats.Difference:
    """First minus second with its interval."""
    return stats.difference(first.value - second.value, first.deviations, second.deviations)


def p_value(first: Sample, second: Sample) -> float:
    """McNemar's test for single masks on one task of right and wrong answers, else sign flips."""
    if first.outcomes is None or second.outcomes is None:
        value = first.value - second.value
        if first.factor is None or second.factor is None:
            return stats.p_value(value, first.null, second.null)
        deviation = float(np.linalg.norm(first.factor - second.factor))
        seeds = [(s.seed_error, len(s.figures)) for s in (first, second) if s.seed_error > 0]
        return stats.normal_p_value(value, deviation, seeds)
    only = first.outcomes[first.outcomes != second.outcomes]
    won = int(only.sum())
    return stats.mcnemar(won, len(only) - won)
