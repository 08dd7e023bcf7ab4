"""SHAPE: experts as players, the sets of experts that tokens are routed to as their coalitions.

    v(A) = tokens routed to exactly the set A of k experts
    n(B) = sum of v(A) over the A that contain B,   |B| = k - 1
    alpha_i = min over A with i of v(A) / n(A - i)
    phi_i = sum over A with i of (v(A) - alpha_i * n(A - i))

An expert is worth what its coalitions have more than its worst partnership would give them; the
published constant factor, equal for all experts of a model, is left out. A layer keeps the fewest
experts whose phi add up to a share of its whole; one share for all layers meets the budget.

Source: arXiv 2606.09886 and Alizen-1009/Shapley-Moe (analysis/calc_shapley.py:
`calculate_shapley_k`; pruning/methods/select_by_shapley.py: `select_by_alpha`). There,
bisection finds a share that keeps about as many experts as asked for; here, experts are taken in
the order in which a growing share takes them, until exactly as many are kept. The sets are counted
on `tokens` tokens that are spread evenly over the corpus.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

import mbench

from .aggregation import AggregateParams, aggregate
from .uneven_layers import best_by_count, check_uneven, fewest_per_group, in_groups

if TYPE_CHECKING:
    import torch


class RoutedSetsParams(mbench.Parameters):
    """How many tokens are looked at."""

    tokens: int = Field(default=65_536, ge=1)


class RoutedSets(mbench.Statistic):
    """`experts`: int16 [t, k], the experts of every n-th token, in ascending order."""

    name = "routed-sets"
    combine = "concatenate"
    Params = RoutedSetsParams
    params: RoutedSetsParams

    def measure(self, batch: mbench.LayerBatch) -> Mapping[str, torch.Tensor]:
        """Return the sets of this batch's tokens that are looked at."""
        import torch

        every = -(-batch.total_tokens // self.params.tokens)
        chosen = batch.top_k_index[-batch.start % every :: every]
        return {"experts": chosen.sort(dim=1).values.to(torch.int16)}


class Shape(mbench.Scorer):
    """phi, the value of an expert in the coalitions that were seen; 0 for one in none."""

    name = "shape"
    Params = RoutedSetsParams
    params: RoutedSetsParams

    @property
    def needs(self) -> tuple[mbench.Statistic, ...]:
        """The sets of experts that tokens are routed to."""
        return (RoutedSets(self.params),)

    def check(self, budget: mbench.Budget) -> None:
        """Raise `Infeasible` for one expert per token: nobody has a partner."""
        if budget.top_k < 2:
            raise mbench.Infeasible("tokens are routed to one expert each: there are no coalitions")

    def score(self, profile: mbench.Profile) -> np.ndarray:
        """Return float64 [layers, N]."""
        return np.stack(
            [
                coalition_values(
                    profile.samples(RoutedSets(self.params), layer)["experts"], profile.num_experts
                )
                for layer in range(len(profile.layers))
            ]
        )


def coalition_values(chosen: np.ndarray, num_experts: int) -> np.ndarray:
    """phi, float64 [N], from the experts that each token was routed to, ascending, [t, k]."""
    coalitions, counts = np.unique(chosen.astype(np.int64), axis=0, return_counts=True)
    size = coalitions.shape[1]
    member = coalitions.T.reshape(-1)
    value = np.tile(counts, size).astype(np.float64)
    # The same k - 1 experts may be what is left of several coalitions, whoever is taken out.
    left = np.concatenate([np.delete(coalitions, place, axis=1) for place in range(size)])
    which = np.unique(left, axis=0, return_inverse=True)[1].reshape(-1)
    beside = np.bincount(which, weights=value)[which]
    least = np.full(num_experts, np.inf)
    np.minimum.at(least, member, value / beside)
    phi: np.ndarray = np.bincount(
        member, weights=value - least[member] * beside, minlength=num_experts
    )
    return phi


class QualityCoverage(mbench.Selector):
    """In every layer, the fewest experts that hold a share of its scores, the same for all."""

    name = "quality-coverage"

    def check(self, budget: mbench.Budget) -> None:
        """Raise `Infeasible` where no counts add up to the budget's total."""
        check_uneven(budget)

    def select(
        self, scores: Mapping[str, mbench.Scores], budget: mbench.Budget, rng: np.random.Generator
    ) -> mbench.Selection:
        """Return `budget.total` experts over all layers, by the mean over corpora."""
        values = np.maximum(aggregate(scores, AggregateParams()), 0)
        counts, share = covering_counts(values, budget)
        note = f"the kept experts hold at least {100 * share:.1f} % of every layer's scores"
        return mbench.Selection(best_by_count(values, counts, budget.groups), (note,))


def covering_counts(values: np.ndarray, budget: mbench.Budget) -> tuple[np.ndarray, float]:
    """How many experts each layer keeps, int [layers], and the least share that a layer covers.

    `values` [layers, N] are not negative. A share grows from 0 to 1 and takes, in every layer, the
    next best expert (one of each group) as soon as those before it hold less than the share.
    """
    worth = -np.sort(-in_groups(values, budget.groups), axis=2)
    worth = worth.sum(axis=1)  # [layers, N / groups]
    whole = worth.sum(axis=1, keepdims=True)
    worth = np.where(whole > 0, worth / np.where(whole > 0, whole, 1), 1 / worth.shape[1])
    covered = np.cumsum(worth, axis=1)
    before = covered - worth
    fewest = fewest_per_group(budget)
    further = budget.total // budget.groups - fewest * budget.num_layers
    taken = np.zeros(before[:, fewest:].size, dtype=bool)
    # Within a layer `before` never falls, so that each takes its best ones.
    taken[np.argsort(before[:, fewest:], axis=None, kind="stable")[:further]] = True
    each = fewest + taken.reshape(len(worth), -1).sum(axis=1)
    share = float(covered[np.arange(len(worth)), each - 1].min())
    counts: np.ndarray = each * budget.groups
    return counts, share


@mbench.hookimpl
def mbench_components() -> list[type[mbench.Component]]:
    """The scorer and the selector above."""
    return [Shape, QualityCoverage]


@mbench.hookimpl
def mbench_methods() -> list[mbench.Method]:
    """On one corpus, as published."""
    return [
        mbench.Method(
            "shape",
            scorer="shape",
            selector="quality-coverage",
            builder="as-selected-uneven",
            corpora=1,
            description="experts by their worth in routed coalitions, uneven layers",
        )
    ]
