"""How many experts each layer keeps, by a rule, and then the best of each layer.

A rule gives every layer a weight w_l >= 0, and the layer keeps about c * w_l experts: c is such
that all counts, held between bounds, add up to K * L, and largest remainders make them whole.

- `routing-entropy`: exp of the entropy of the experts' shares of routed tokens, the number of
  experts that the layer uses in effect.
- `score-entropy`: the same of their shares of the layer's score.
- `score-mass`: the layer's total score.
- `linear`: from 1 - slope in the first layer to 1 + slope in the last one.
- `u-shaped`: from 1 + slope in the first and the last layer to 1 - slope in the middle; a negative
  slope turns it round.
- `reconstruction`: the share of the layer's output that is lost (J / sum a, see
  `gram_statistics`) when backward elimination leaves K experts: layers that suffer more keep more.

The formulas are our own. Of GRAPE (arXiv 2604.06542), which allocates by the redundancy of layers,
only the abstract was to be had; EvoESAP (arXiv 2603.06003) searches the counts instead.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import numpy as np
from pydantic import Field

import mbench

from .aggregation import AggregateParams, aggregate
from .expert_sparsity import ReconstructionSample, SampleParams, layer_statistics
from .reconstruction import elimination_order
from .uneven_layers import best_by_count, check_uneven, fewest_per_group

Rule = Literal[
    "routing-entropy", "score-entropy", "score-mass", "linear", "u-shaped", "reconstruction"
]


class AllocationParams(AggregateParams):
    """The rule, and how far from K it may go."""

    rule: Rule = "routing-entropy"
    slope: float = Field(default=0.5, ge=-1, le=1)
    """Of the two schedules."""
    lowest: float = Field(default=0.5, ge=0, le=1)
    """No layer keeps less than this share of K, rounded down."""
    highest: float = Field(default=2.0, ge=1)
    """No layer keeps more than this many times K, rounded up."""
    sample: SampleParams = SampleParams()
    """Of the `reconstruction` rule."""


def effective_number(values: np.ndarray) -> np.ndarray:
    """[layers], exp of the entropy of values [layers, N] >= 0 as shares; 0 where all are 0."""
    totals = values.sum(axis=1, keepdims=True)
    shares = values / np.where(totals > 0, totals, 1)
    logs = np.log(np.where(shares > 0, shares, 1))
    number: np.ndarray = np.where(totals[:, 0] > 0, np.exp(-(shares * logs).sum(axis=1)), 0.0)
    return number


def proportional(weights: np.ndarray, total: int, lowest: int, highest: int) -> np.ndarray:
    """int [layers] from `lowest` to `highest` that add up to `total`, in proportion to weights.

    Exactly proportional counts are limited to the bounds and scaled until they add up; they are
    then rounded down, and the largest remainders get one more, equal ones by lower layer. Needs
    weights >= 0 and a total that the bounds allow. Layers of weight 0 keep `lowest`, or what is
    left when all others keep `highest`.
    """
    positive = weights > 0
    if positive.sum() * highest + (~positive).sum() * lowest < total:
        wanted = np.full(len(weights), float(highest))
        if not positive.all():
            rest = (total - positive.sum() * highest) / (~positive).sum()
            wanted[~positive] = rest
    else:
        unit = weights / weights.max() if positive.any() else weights
        # The sum of limited counts is piecewise linear in c, with bends where a limit is met.
        bends = np.unique(np.concatenate([[0.0], *(b / unit[positive] for b in (lowest, highest))]))
        sums = [np.clip(bend * unit, lowest, highest).sum() for bend in bends]
        wanted = np.clip(np.interp(total, sums, bends) * unit, lowest, highest)
    wanted = wanted.round(9)
    counts: np.ndarray = np.floor(wanted).astype(np.int64)
    largest = np.lexsort((-weights, counts - wanted))
    counts[largest[: total - int(counts.sum())]] += 1
    return counts


class Allocated(mbench.Selector):
    """As many of each layer's best experts as the rule gives it."""

    name = "allocated"
    Params = AllocationParams
    params: AllocationParams

    @property
    def needs(self) -> tuple[mbench.Statistic, ...]:
        """What the rule looks at beside scores."""
        if self.params.rule == "routing-entropy":
            return (mbench.RoutingSums(),)
        if self.params.rule == "reconstruction":
            return (ReconstructionSample(self.params.sample),)
        return ()

    def check(self, budget: mbench.Budget) -> None:
        """Raise `Infeasible` where no counts add up to the budget's total."""
        check_uneven(budget)

    def select(
        self, scores: Mapping[str, mbench.Scores], budget: mbench.Budget, rng: np.random.Generator
    ) -> mbench.Selection:
        """Return `budget.total` experts over all layers.

        Raises `PluginError` where a rule that shares out scores meets negative ones.
        """
        values = aggregate(scores, self.params)
        per_group = budget.kept / budget.groups
        counts = budget.groups * proportional(
            self._weights(scores, values, budget),
            budget.total // budget.groups,
            max(fewest_per_group(budget), math.floor(self.params.lowest * per_group)),
            min(budget.num_experts // budget.groups, math.ceil(self.params.highest * per_group)),
        )
        return mbench.Selection(best_by_count(values, counts, budget.groups))

    def _weights(
        self, scores: Mapping[str, mbench.Scores], values: np.ndarray, budget: mbench.Budget
    ) -> np.ndarray:
        """[layers], the mean over corpora where the rule looks at each of them."""
        rule = self.params.rule
        if rule in ("linear", "u-shaped"):
            depth = np.linspace(-1, 1, budget.num_layers)
            height = depth if rule == "linear" else 2 * np.abs(depth) - 1
            return np.asarray(1 + self.params.slope * height)
        if rule in ("score-entropy", "score-mass"):
            if values.min() < 0:
                raise mbench.PluginError(f"rule {rule!r} needs scores that are not negative")
            totals: np.ndarray = values.sum(axis=1)
            return effective_number(values) if rule == "score-entropy" else totals
        profiles = [score.profile for score in scores.values()]
        if rule == "routing-entropy":
            counted = [profile.sums(mbench.RoutingSums())["count"] for profile in profiles]
            weights = [effective_number(counts) for counts in counted]
        else:
            weights = [self._lost(profile, budget) for profile in profiles]
        mean: np.ndarray = np.mean(weights, axis=0)
        return mean

    def _lost(self, profile: mbench.Profile, budget: mbench.Budget) -> np.ndarray:
        """[layers], the share of the output that is lost with the K experts dropped last."""
        lost = np.empty(budget.num_layers)
        for layer in range(budget.num_layers):
            statistics, _, _ = layer_statistics(
                profile, layer, ReconstructionSample(self.params.sample)
            )
            keep = np.zeros(budget.num_experts, dtype=bool)
            keep[elimination_order(statistics)[-budget.kept :]] = True
            # Rounding can leave it slightly below 0.
            lost[layer] = max(0.0, statistics.relative_loss(keep))
        return lost


@mbench.hookimpl
def mbench_components() -> list[type[mbench.Component]]:
    """The selector above."""
    return [Allocated]


@mbench.hookimpl
def mbench_methods() -> list[mbench.Method]:
    """Every rule with REAP's best experts within the layers."""
    return [
        mbench.Method(
            f"{rule}-allocation",
            scorer="reap",
            selector=mbench.Use("allocated", {"rule": rule}),
            builder="as-selected-uneven",
            description=f"uneven layers by {what}, the best by REAP in each",
        )
        for rule, what in _DESCRIBED.items()
    ]


_DESCRIBED: Mapping[Rule, str] = {
    "routing-entropy": "the number of experts they use in effect",
    "score-entropy": "the number of experts that share their REAP score in effect",
    "score-mass": "their total REAP score",
    "linear": "depth, more in later ones",
    "u-shaped": "depth, more in the first and last ones",
    "reconstruction": "what they lose at K experts each",
}
