"""Random pruning, the baseline that every method must beat, once per seed."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

import mbench


class Uniform(mbench.Selector):
    """K of N experts per layer, uniformly and independently of other layers."""

    name = "uniform"
    stochastic = True

    def select(
        self, scores: Mapping[str, mbench.Scores], budget: mbench.Budget, rng: np.random.Generator
    ) -> mbench.Selection:
        """Return K experts per layer drawn from `rng`; scores are ignored."""
        chosen = np.zeros((budget.num_layers, budget.num_experts), dtype=bool)
        for layer in chosen:
            layer[rng.choice(budget.num_experts, budget.kept, replace=False)] = True
        return mbench.Selection(chosen)


@mbench.hookimpl
def mbench_components() -> list[type[mbench.Component]]:
    """The selector above."""
    return [Uniform]


@mbench.hookimpl
def mbench_methods() -> list[mbench.Method]:
    """The method `random`."""
    return [mbench.Method("random", selector="uniform", description="uniform K of N per layer")]
