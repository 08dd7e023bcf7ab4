"""The interval and p-value of the difference of two methods on the same items."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mbench.core.results import CellKey
from mbench.report.statistics.groups import Entry
from mbench.report.statistics.pairing import Paired
from mbench.report.statistics.resampling import Stratum, bootstrap, sign_factor, sign_flips
from mbench.report.statistics.seed_summaries import seed_error
from mbench.report.statistics.significance import (
    Difference,
    mcnemar,
    normal_p_value,
    sign_flip_p_value,
    with_interval,
)


@dataclass(frozen=True)
class Sample:
    """A method's masks on the common items, with the draws that comparisons need."""

    figures: np.ndarray
    """[S] the observed score of each of its masks."""
    outcomes: np.ndarray | None
    """[items] right (1) or wrong (0), of a single mask on a single task whose items count alike;
    else None."""
    deviations: np.ndarray | None
    """[R] bootstrap deviations of its mean, with the error of few seeds; None if no interval is
    needed."""
    null: np.ndarray | None
    """[R] sign flips of its mean, with the error of few seeds; None if `factor` is set."""
    factor: np.ndarray | None
    """[K] of its mean, from `resampling.sign_factor`; None if a task has few items."""
    seed_error: float
    """Standard error that comes from having few seeds."""

    @cached_property
    def value(self) -> float:
        """The mean over its masks."""
        return float(self.figures.mean())


def samples(
    entries: Iterable[Entry], paired: Paired[CellKey], resamples: int, *, intervals: bool = True
) -> list[tuple[Entry, Sample]]:
    """The entries whose cells are all paired, each with its sample."""
    complete: list[Entry] = []
    columns: list[list[int]] = []
    for entry in entries:
        of_entry = paired.columns_of(cell.key for cell in entry.cells)
        if of_entry is not None:
            complete.append(entry)
            columns.append(of_entry)
    drawn = samples_of_columns(columns, paired.strata, resamples, intervals=intervals)
    return list(zip(complete, drawn, strict=True))


def samples_of_columns(
    columns_by_method: Sequence[Sequence[int]],
    strata: Sequence[Stratum],
    resamples: int,
    *,
    intervals: bool = True,
) -> list[Sample]:
    """A sample for each method, from the columns of its masks; equal outcomes give equal draws."""
    if not columns_by_method:
        return []
    rng = np.random.default_rng(0)
    boot = bootstrap(strata, rng, resamples) if intervals else None
    factor = sign_factor(strata)
    # Of few items p-values are counted from draws, so that more of them have to be drawn.
    flips = None if factor is not None else sign_flips(strata, rng, 2 * resamples)
    observed = np.mean([stratum.figures for stratum in strata], axis=0)
    drawn = []
    for columns in columns_by_method:
        figures = observed[columns]
        outcomes = None
        if len(columns) == len(strata) == 1:
            totals = strata[0].totals[:, columns[0]]
            plain = np.isin(totals, (0, 1)).all() and (strata[0].sizes == 1).all()
            outcomes = totals if plain else None
        null = None if flips is None else flips[:, columns]
        factors = None if factor is None else factor[:, columns]
        error = seed_error(figures, _variance_between(null, factors))
        drawn.append(
            Sample(
                figures=figures,
                outcomes=outcomes,
                deviations=None if boot is None else _mean_with_seeds(boot[:, columns], error, rng),
                null=None if null is None else _mean_with_seeds(null, error, rng),
                factor=None if factors is None else factors.mean(axis=1),
                seed_error=error,
            )
        )
    return drawn


def _variance_between(null: np.ndarray | None, factors: np.ndarray | None) -> float:
    """The variance between masks that sampling of items explains: the mean over draws, or the sum
    over the rows of a factor."""
    drawn = factors if null is None else null
    if drawn is None or drawn.shape[1] < 2:
        return 0.0
    variances = drawn.var(axis=1, ddof=1)
    return float(variances.sum() if null is None else variances.mean())


def _mean_with_seeds(draws: np.ndarray, error: float, rng: np.random.Generator) -> np.ndarray:
    """The masks' mean [R] of their draws [R, S], with the error of having few seeds."""
    mean: np.ndarray = draws.mean(axis=1)
    if draws.shape[1] > 1:
        mean = mean + error * rng.standard_t(draws.shape[1] - 1, len(draws))
    return mean


def difference(first: Sample, second: Sample) -> Difference:
    """First minus second with its interval; both must have `deviations`."""
    if first.deviations is None or second.deviations is None:
        raise ValueError("no interval without bootstrap deviations")
    return with_interval(first.value - second.value, first.deviations, second.deviations)


def p_value(first: Sample, second: Sample) -> float:
    """McNemar's test for single masks on one task of right and wrong answers, else sign flips."""
    if first.outcomes is not None and second.outcomes is not None:
        only = first.outcomes[first.outcomes != second.outcomes]
        won = int(only.sum())
        return mcnemar(won, len(only) - won)
    value = first.value - second.value
    if first.factor is not None and second.factor is not None:
        deviation = float(np.linalg.norm(first.factor - second.factor))
        seeds = [(s.seed_error, len(s.figures)) for s in (first, second) if s.seed_error > 0]
        return normal_p_value(value, deviation, seeds)
    if first.null is None or second.null is None:
        raise ValueError("the samples were not drawn together")
    return sign_flip_p_value(value, first.null, second.null)
