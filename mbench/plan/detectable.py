"""The least difference between two methods that the items of a suite can tell apart.

A difference D of two methods in the share of right answers rests on the items on which they
disagree: of n items a share d does, so that D has the variance (d - D^2) / n (Connor 1987,
Biometrics 43, 207-211; Miller 2024, arXiv:2411.00640, section 5). A report tests D with one item
won and one lost added (Bonett and Price 2012, doi:10.3102/1076998611411915), on t quantiles at
5 % / comparisons, two-sided. So with s the error that the test estimates and s' the one that D has,
80 % of runs tell two methods apart whose difference solves

    D n / (n + 2) = t(1 - 0.05 / (2 comparisons)) s + t(0.80) s'
    s^2 = (n d + 2 - n^2 D^2 / (n + 2)) / (n + 2)^2
    s'^2 = n (d - D^2) / (n + 2)^2

at d or D, whichever is more: two methods disagree at least as much as they differ. For the mean of
several tasks, their centres and variances are averaged, with Satterthwaite's degrees of freedom.
Graded metrics between 0 and 1 vary no more than right and wrong answers that disagree as often.
For losses, s = s' is the measured error. With fewer than about 100 items, and by Holm's method, a
little more is found than this says. Methods whose masks turn out equal are counted as if they were
not, and items as if all counted alike.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from mbench.core.evaluation import LOWER_IS_BETTER
from mbench.plan.cost import stored_size
from mbench.plan.models import PlannedModel
from mbench.plan.plan import Plan
from mbench.plan.random_masks import RANDOM, random_seeds
from mbench.plan.stored_spreads import (
    Family,
    SeedSpread,
    Spread,
    seed_spread,
    stored_spreads,
)
from mbench.plan.tasks import PlannedTask
from mbench.storage.store import Store

LEVEL, POWER = 0.05, 0.8

ASSUMED = 0.1
"""Share of right/wrong items on which two masked models are taken to disagree, until evaluations
in the store tell. In the quickstart it is 3 to 30 %, more where more is pruned."""

QUESTIONS: Mapping[Family, str] = {
    "methods": "Which is best?",
    "unpruned": "Did pruning hurt?",
    "random": "Better than random?",
}
"""What each family of comparisons answers, in the order of the page."""

FEWEST_ITEMS, FEWEST_DOCUMENTS = 10, 30
"""Below these a report tests nothing."""


@dataclass(frozen=True)
class Sample:
    """What a difference on one task rests on."""

    units: float
    """Items, or documents."""
    spread: float
    """Of right/wrong items the share on which two masked models disagree, else the variance of a
    difference times `units`."""
    right_or_wrong: bool

    def centre(self, difference: float) -> float:
        """Of the test's interval."""
        return difference * self.units / (self.units + 2) if self.right_or_wrong else difference

    def variances(self, difference: float) -> tuple[float, float]:
        """That the test estimates, and that of its centre."""
        if not self.right_or_wrong:
            return self.spread / self.units, self.spread / self.units
        n, grown = self.units, self.units + 2
        disagree = max(self.spread, difference)
        estimated = n * disagree + 2 - (n * difference) ** 2 / grown
        return estimated / grown**2, n * (disagree - difference**2) / grown**2


@dataclass(frozen=True)
class Detectable:
    """The least differences on one task, or in the suite's score."""

    model: str
    name: str
    of_score: bool
    """Whether it is what methods are ranked by."""
    units: int | None
    """Items, or documents; None where nobody has counted them."""
    disagree: tuple[float, float] | None
    """Least and greatest share of items on which two masked models are taken to disagree; None
    where outcomes are not right or wrong."""
    measured: bool
    """Whether evaluations in the store say how much outcomes differ; else it is `ASSUMED`."""
    comparisons: Mapping[Family, int]
    """By family, of the methods that are evaluated on it."""
    least: Mapping[Family, float | None]
    """By family, the median over budgets; None where it is not known, or none would be found."""


def comparisons_of(methods: int, *, random: bool) -> dict[Family, int]:
    """Comparisons in each family of a report, for so many methods beside random pruning."""
    return {
        "random": methods if random else 0,
        "unpruned": methods + random,
        "methods": methods * (methods - 1) // 2,
    }


def least_difference(
    samples: Sequence[Sample], comparisons: int, seeds: SeedSpread | None = None
) -> float | None:
    """The difference in the mean over tasks that is found with 80 % power; None: none is.

    Args:
        samples: one per task; each task is taken to differ by the same.
        comparisons: of the family.
        seeds: what random masks add to the error of their mean.
    """
    from scipy.optimize import brentq
    from scipy.stats import t as student

    if not comparisons or not samples:
        return None
    if any(s.units < (FEWEST_ITEMS if s.right_or_wrong else FEWEST_DOCUMENTS) for s in samples):
        return None
    extra, count = seeds or SeedSpread(0.0, 0.0), len(samples)

    def beyond(difference: float) -> float:
        parts = [sample.variances(difference) for sample in samples]
        estimated = math.fsum(part[0] for part in parts) / count**2 + extra.variance
        true = math.fsum(part[1] for part in parts) / count**2 + extra.variance
        doubt = math.fsum(
            (part[0] / count**2) ** 2 / (s.units - 1)
            for part, s in zip(parts, samples, strict=True)
        )
        doubt += extra.doubt
        freedom = max(1.0, estimated**2 / doubt) if doubt else math.inf
        needed = student.isf(LEVEL / comparisons / 2, freedom) * math.sqrt(estimated)
        needed += student.ppf(POWER, freedom) * math.sqrt(max(0.0, true))
        centre = math.fsum(sample.centre(difference) for sample in samples) / count
        return float(centre - needed)

    return _root(beyond, bounded=any(sample.right_or_wrong for sample in samples), solve=brentq)


def _root(
    beyond: Callable[[float], float], *, bounded: bool, solve: Callable[..., float]
) -> float | None:
    """Where `beyond` becomes positive; shares are at most 1."""
    if beyond(0.0) >= 0:
        return 0.0
    most = 1.0
    while beyond(most) < 0:
        if bounded or most > 1e6:
            return None
        most *= 2
    return float(solve(beyond, 0.0, most, xtol=1e-6))


def detectable(plan: Plan, store: Store) -> list[Detectable]:
    """For every model a line per task and text, and last one for the score that ranks."""
    return [each for model in plan.models for each in _of_model(plan, store, model)]


@dataclass(frozen=True)
class _Known:
    """What is known of one task before a run."""

    units: float | None
    right_or_wrong: bool
    stored: Spread | None

    @property
    def shares(self) -> list[float]:
        """Of items on which two masked models disagree."""
        found = {} if self.stored is None else self.stored.squares
        families: tuple[Family, ...] = ("unpruned", "methods")
        return [found.get(f, ASSUMED) for f in families] if self.right_or_wrong else []

    def sample(self, family: Family, masks: int) -> Sample | None:
        """For a family's comparisons; against the mean of so many random masks."""
        if self.stored is not None:
            at_random = family == "random"
            of_family = self.stored.squares.get(family)
            measured = self.stored.against_random(masks) if at_random else of_family
            if measured is not None:
                return Sample(self.stored.units, measured, self.stored.right_or_wrong)
        if self.units is None or not self.right_or_wrong:
            return None
        # The mean of S masks, each of which disagrees as often with the others as with the method.
        averaged = (1 + 1 / masks) / 2 if family == "random" else 1.0
        return Sample(self.units, ASSUMED * averaged, right_or_wrong=True)


def _of_model(plan: Plan, store: Store, model: PlannedModel) -> list[Detectable]:
    masks = len(random_seeds(plan))
    spreads = stored_spreads(plan, store, model)
    # By budget where the store tells them apart; None: none is stored.
    known = [
        {task.name: _known(plan, store, model, task, spread.get(task.name)) for task in plan.tasks}
        for spread in spreads.values() or [{}]
    ]
    average = plan.suite.average
    losses = tuple(task.name for task in plan.tasks if task.metric in LOWER_IS_BETTER)
    score, parts = (average.name, average.tasks) if average else ("Mean log perplexity", losses)
    rows: list[tuple[str, Sequence[str]]] = [(task.name, (task.name,)) for task in plan.tasks]
    rows += [(score, parts)] if parts else []
    return [
        _row(
            model.name,
            name,
            name == score,
            [[at_budget[task] for task in tasks] for at_budget in known],
            _comparisons(plan, tasks),
            masks,
        )
        for name, tasks in rows
    ]


def _comparisons(plan: Plan, tasks: Sequence[str]) -> dict[Family, int]:
    """Of the methods that are evaluated on all of these tasks."""
    asked = {
        cell.method.name
        for cell in plan.cells
        if cell.method.evaluated and {task.name for task in plan.tasks_of(cell)}.issuperset(tasks)
    }
    return comparisons_of(len(asked - {RANDOM}), random=RANDOM in asked)


def _row(
    model: str,
    name: str,
    of_score: bool,
    budgets: Sequence[Sequence[_Known]],
    comparisons: Mapping[Family, int],
    masks: int,
) -> Detectable:
    least: dict[Family, float | None] = {}
    for family, size in comparisons.items():
        found = [_least(family, size, known, masks) for known in budgets]
        present = [value for value in found if value is not None]
        least[family] = statistics.median(present) if present else None
    shares = [share for known in budgets for each in known for share in each.shares]
    units = [each.units for each in budgets[0]]
    return Detectable(
        model=model,
        name=name,
        of_score=of_score,
        units=None if None in units else round(sum(unit for unit in units if unit is not None)),
        disagree=(min(shares), max(shares)) if shares else None,
        measured=all(each.stored is not None for known in budgets for each in known),
        comparisons=comparisons,
        least=least,
    )


def _known(
    plan: Plan, store: Store, model: PlannedModel, task: PlannedTask, stored: Spread | None
) -> _Known:
    loss = task.metric in LOWER_IS_BETTER
    if stored is not None:
        return _Known(stored.units, stored.right_or_wrong, stored)
    size = stored_size(plan, store, model, task)
    items = task.expected_items if size is None else size.items
    return _Known(None if loss else items, not loss, None)


def _least(family: Family, comparisons: int, known: Sequence[_Known], masks: int) -> float | None:
    if not comparisons:
        return None
    samples = [each.sample(family, masks) for each in known]
    present = [sample for sample in samples if sample is not None]
    if len(present) < len(samples):
        return None
    stored = [each.stored for each in known if each.stored is not None]
    seeds = seed_spread(stored, masks) if family == "random" and len(stored) == len(known) else None
    return least_difference(present, comparisons, seeds)
