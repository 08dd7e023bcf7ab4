"""How much the outcomes of masked models differ, as evaluations in the store have it.

What a plan knows of its tasks before its run is complete. Squares of differences are averaged over
the pairs of masks of a budget.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from mbench.core.evaluation import LOWER_IS_BETTER, WEIGHT
from mbench.core.interfaces import RouterMode
from mbench.plan.cells import Cell
from mbench.plan.models import PlannedModel
from mbench.plan.plan import Plan
from mbench.plan.random_masks import RANDOM
from mbench.plan.tasks import PlannedTask
from mbench.storage.mask_json import mask_from_json
from mbench.storage.store import Store

if TYPE_CHECKING:
    import pandas as pd

Family = Literal["random", "unpruned", "methods"]
"""Comparisons with random pruning, with the unpruned model, and of methods with each other."""

FAMILIES: tuple[Family, ...] = ("random", "unpruned", "methods")

MOST_READ = 400
"""Evaluations of a model that are read for a plan: more take seconds, and tell little more."""

FEWEST_MASKS = 3
"""Random masks from which on their spread is estimated."""


@dataclass(frozen=True)
class Outcomes:
    """One mask on one task; the figure is sum(totals) / sum(sizes)."""

    names: tuple[str, ...]
    """Of the units."""
    totals: np.ndarray
    """[units]: the metric of an item times its weight, or a document's loss in nats."""
    sizes: np.ndarray
    """[units]: weights, or tokens."""

    @property
    def right_or_wrong(self) -> bool:
        """Whether they are 0 or 1, and count alike."""
        return bool((self.sizes == 1).all() and np.isin(self.totals, (0, 1)).all())

    @property
    def figure(self) -> float:
        """What was observed."""
        return float(self.totals.sum() / self.sizes.sum())

    @property
    def effective(self) -> float:
        """Kish's number of units of equal size that have the same error."""
        return float(self.sizes.sum() ** 2 / (self.sizes**2).sum())

    def square(self, other: Outcomes, *, right_or_wrong: bool) -> float:
        """Of right/wrong items the share on which the two disagree; else the variance of their
        difference, by linearisation over units, times the effective units."""
        difference = self.totals - other.totals
        if right_or_wrong:
            return float((difference**2).mean())
        total, units = self.sizes.sum(), len(self.sizes)
        residuals = difference - self.sizes * difference.sum() / total
        variance = units / max(1, units - 1) * (residuals**2).sum() / total**2
        return float(variance * self.effective)


@dataclass(frozen=True)
class Spread:
    """How much outcomes on one task differ at one budget."""

    units: float
    """Items, or documents as so many of equal size."""
    right_or_wrong: bool
    squares: Mapping[Family, float]
    """Mean of `Outcomes.square`, over pairs of a method and one random mask, a method and the
    unpruned model, and two methods; without what the store does not tell."""
    between_masks: float = 0.0
    """The same over pairs of random masks."""
    figures: Mapping[int, float] = field(default_factory=dict)
    """Those of random masks, by seed."""

    def against_random(self, masks: int) -> float | None:
        """The mean square of the difference of a method and the mean of so many random masks."""
        single = self.squares.get("random")
        return None if single is None else single - (1 - 1 / masks) / 2 * self.between_masks


@dataclass(frozen=True)
class SeedSpread:
    """What random masks add to the error of their mean."""

    variance: float
    doubt: float
    """Its square over the degrees of freedom."""


def stored_spreads(plan: Plan, store: Store, model: PlannedModel) -> dict[float, dict[str, Spread]]:
    """By budget and task, where the store has outcomes of two masks at least."""
    masks = _stored_masks(plan, store, model)
    most = max(4, MOST_READ // max(1, len(plan.tasks) * len(plan.suite.retain)))
    spreads: dict[float, dict[str, Spread]] = {}
    for task in plan.tasks:
        for retain, spread in _of_task(plan, store, model, task, masks, most):
            spreads.setdefault(retain, {})[task.name] = spread
    return spreads


def seed_spread(spreads: Sequence[Spread], masks: int) -> SeedSpread | None:
    """Of the mean over tasks, for so many random masks; None where the store does not tell.

    The variance between masks, less what items explain of it, as reports have it.
    """
    seeds = set.intersection(*(set(spread.figures) for spread in spreads))
    if len(seeds) < FEWEST_MASKS:
        return None
    figures = np.array([[each.figures[seed] for seed in seeds] for each in spreads])
    between = float(figures.mean(axis=0).var(ddof=1))
    explained = 0.0
    for spread, of_task in zip(spreads, figures, strict=True):
        own = 2 * of_task.var(ddof=1) if spread.right_or_wrong else 0.0
        explained += (spread.between_masks - own) / spread.units / 2 / len(spreads) ** 2
    doubt = (between / masks) ** 2 / (len(seeds) - 1)
    return SeedSpread(max(0.0, between - explained) / masks, doubt)


@dataclass(frozen=True)
class _Mask:
    """A mask that is made, and the first cell that has it."""

    cell: Cell
    content_hash: str


def _stored_masks(plan: Plan, store: Store, model: PlannedModel) -> dict[float, list[_Mask]]:
    """By budget; equal masks are one."""
    masks: dict[float, dict[str, _Mask]] = {}
    for cell in plan.cells_of(model.name):
        if cell.method.published is not None:
            continue
        stored = store.read_json(cell.mask_key) if cell.mask_key else None
        if stored is not None and cell.method.evaluated:
            made = mask_from_json(stored, model.facts.layers).content_hash
            masks.setdefault(cell.budget.retain, {}).setdefault(made, _Mask(cell, made))
    return {retain: list(of_budget.values()) for retain, of_budget in masks.items()}


def _of_task(
    plan: Plan,
    store: Store,
    model: PlannedModel,
    task: PlannedTask,
    masks: Mapping[float, Sequence[_Mask]],
    most: int,
) -> Iterator[tuple[float, Spread]]:
    def read(content_hash: str, router: RouterMode) -> Outcomes | None:
        key = plan.evaluation_key(model, content_hash, router, task)
        table = store.read_items(key) if store.has_items(key) else None
        return None if table is None else _outcomes(table, task.metric)

    unpruned = read(model.unpruned_mask.content_hash, plan.suite.router)
    for retain, of_budget in masks.items():
        found = [
            (m.cell, read(m.content_hash, m.cell.budget.router)) for m in _some(of_budget, most)
        ]
        listed = [(cell, outcomes) for cell, outcomes in found if outcomes is not None]
        everything = [o for o in (unpruned, *(o for _, o in listed)) if o is not None]
        if len({outcomes.names for outcomes in everything}) == 1 and len(everything) > 1:
            yield retain, _spread(listed, unpruned, everything)


def _some(masks: Sequence[_Mask], most: int) -> Iterator[_Mask]:
    """So many masks, at most half of them random ones."""
    random = [mask for mask in masks if mask.cell.method.name == RANDOM][: max(1, most // 2)]
    methods = [mask for mask in masks if mask.cell.method.name != RANDOM]
    yield from [*random, *methods][:most]


def _spread(
    listed: Sequence[tuple[Cell, Outcomes]],
    unpruned: Outcomes | None,
    everything: Sequence[Outcomes],
) -> Spread:
    binary = all(outcomes.right_or_wrong for outcomes in everything)
    random = [cell.method.name == RANDOM for cell, _ in listed]
    squares: dict[str, list[float]] = {"random": [], "unpruned": [], "methods": [], "masks": []}
    if unpruned is not None:
        for at_random, (_, outcomes) in zip(random, listed, strict=True):
            if not at_random:
                squares["unpruned"].append(outcomes.square(unpruned, right_or_wrong=binary))
    for first, second in itertools.combinations(range(len(listed)), 2):
        family = ("methods", "random", "masks")[random[first] + random[second]]
        if family == "methods" or sum(random) >= FEWEST_MASKS:
            square = listed[first][1].square(listed[second][1], right_or_wrong=binary)
            squares[family].append(square)
    between = squares.pop("masks")
    return Spread(
        everything[0].effective,
        binary,
        {family: float(np.mean(squares[family])) for family in FAMILIES if squares[family]},
        float(np.mean(between)) if between else 0.0,
        {
            cell.seed: outcomes.figure
            for cell, outcomes in listed
            if cell.method.name == RANDOM and cell.seed is not None
        },
    )


def _outcomes(table: pd.DataFrame, metric: str) -> Outcomes | None:
    """None where the table does not have the metric."""
    if metric in LOWER_IS_BETTER and {"document", "nll", "tokens"} <= set(table.columns):
        names, document = np.unique(table["document"].to_numpy(), return_inverse=True)
        of_documents = (np.bincount(document, table[name]) for name in ("nll", "tokens"))
        return Outcomes(tuple(map(str, names)), *of_documents)
    if metric not in table.columns:
        return None
    there = table[table[metric].notna()]
    sizes = there[WEIGHT].to_numpy(float) if WEIGHT in there else np.ones(len(there))
    totals = there[metric].to_numpy(float) * sizes
    return Outcomes(tuple(there["item"]), totals, sizes) if len(there) else None
