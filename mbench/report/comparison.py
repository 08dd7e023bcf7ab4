"""Two methods compared on the same items, seeds included."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from mbench import stats
from mbench.report.arrange import Entry
from mbench.report.pairing import Paired


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
    null: np.ndarray
    """[R] sign flips of its mean, errors of seeds included."""

    @property
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
    flips = stats.sign_flips(paired.strata, rng, resamples)
    observed = np.mean([stratum.figures for stratum in paired.strata], axis=0)
    found = []
    for entry in entries:
        columns = [paired.columns.get(id(cell)) for cell in entry.cells]
        if None in columns:
            continue
        figures = observed[columns]
        errors = stats.seed_errors(figures, flips[:, columns], rng)
        outcomes = None
        if len(columns) == len(paired.strata) == 1:
            own = paired.strata[0].totals[:, columns[0]]
            outcomes = own if np.isin(own, (0, 1)).all() else None
        drawn = None if boot is None else boot[:, columns].mean(axis=1) + errors
        null = flips[:, columns].mean(axis=1) + errors
        found.append(Sample(entry, figures, outcomes, drawn, null))
    return found


def difference(first: Sample, second: Sample) -> stats.Difference:
    """First minus second with its interval."""
    return stats.difference(first.value - second.value, first.deviations, second.deviations)


def p_value(first: Sample, second: Sample) -> float:
    """McNemar's test for single masks on one task of right and wrong answers, else sign flips."""
    if first.outcomes is None or second.outcomes is None:
        return stats.p_value(first.value - second.value, first.null, second.null)
    only = first.outcomes[first.outcomes != second.outcomes]
    won = int(only.sum())
    return stats.mcnemar(won, len(only) - won)
