"""Global ranking: the best experts of the whole model, whichever layers they are in.

    maximise  sum of s(l, e) over kept experts   with K * L kept in all, none below its fewest

The largest-first choice is exact: within a layer (or within its groups, all of which keep equally
many) the worth of one more expert never grows, so that the sum is concave in every layer's count.

Sources: the routing-score variant of MoNE ranks all experts of the model by one threshold
(zxgx/mode-pd, modepd/pruning/expert_prune.py, `expert_ranking_scope model`), and keeps one expert
where a layer would be left with none; EvoESAP compares with it (ZongfangLiu/EvoESAP,
experiments/pruning-global-cli.sh). Raw scores differ between layers, because norms of hidden states
grow with depth: `normalize` removes that, `sum` by each expert's share of its layer's total.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

import mbench

from .aggregation import AggregateParams, aggregate
from .uneven_layers import best_by_count, check_uneven, fewest_per_group, in_groups


def globally_best_counts(values: np.ndarray, budget: mbench.Budget) -> np.ndarray:
    """int [layers], how many experts of each layer are among the model's best.

    `values` is [layers, N]; equal worth goes to the lower layer.
    """
    ordered = -np.sort(-in_groups(values, budget.groups), axis=2)
    worth = ordered.sum(axis=1)  # [layers, N / groups]: of the next expert of every group
    fewest = fewest_per_group(budget)
    further = budget.total // budget.groups - fewest * budget.num_layers
    worth = worth[:, fewest:]
    taken = np.zeros(worth.size, dtype=bool)
    taken[np.argsort(-worth, axis=None, kind="stable")[:further]] = True
    counts: np.ndarray = (fewest + taken.reshape(worth.shape).sum(axis=1)) * budget.groups
    return counts


class GlobalRanking(mbench.Selector):
    """The K * L best experts of the model, by the mean or maximum over corpora of their scores."""

    name = "global-ranking"
    Params = AggregateParams
    params: AggregateParams

    def check(self, budget: mbench.Budget) -> None:
        """Raise `Infeasible` where no counts add up to the budget's total."""
        check_uneven(budget)

    def select(
        self, scores: Mapping[str, mbench.Scores], budget: mbench.Budget, rng: np.random.Generator
    ) -> mbench.Selection:
        """Return `budget.total` experts over all layers."""
        values = aggregate(scores, self.params)
        counts = globally_best_counts(values, budget)
        return mbench.Selection(best_by_count(values, counts, budget.groups))


@mbench.hookimpl
def mbench_components() -> list[type[mbench.Component]]:
    """The selector above."""
    return [GlobalRanking]


@mbench.hookimpl
def mbench_methods() -> list[mbench.Method]:
    """Global ranking by REAP, by raw scores and by shares of each layer's total."""
    return [
        mbench.Method(
            "global-reap",
            scorer="reap",
            selector="global-ranking",
            builder="as-selected-uneven",
            description="the model's best experts by REAP, uneven layers",
        ),
        mbench.Method(
            "global-reap-share",
            scorer="reap",
            selector=mbench.Use("global-ranking", {"normalize": "sum"}),
            builder="as-selected-uneven",
            description="the model's best experts by their share of a layer's REAP, uneven layers",
        ),
    ]
