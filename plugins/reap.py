"""REAP: router-weighted expert activation, and the simpler counts it is compared with.

The score is equation 2 of arXiv 2607.01710: the mean, over the tokens routed to an expert, of its
gate weight times the norm of its unweighted output.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

import mbench


class Reap(mbench.Scorer):
    """Mean over routed tokens of g * ||f||; an expert no token selected scores 0.

    g is the combine weight that the model itself uses, renormalised over the top-k only where the
    model does so. Other variants seen in public code: `count` (frequency), `gate` (sum of g),
    `norm` (sum of ||f||), `mean-norm` (mean of ||f||) and `sum` (sum of g * ||f||).
    """

    name = "reap"

    class Params(mbench.Parameters):
        """Which of the published variants."""

        variant: Literal["mean", "sum", "count", "gate", "norm", "mean-norm"] = "mean"

    @property
    def needs(self) -> tuple[mbench.Statistic, ...]:
        """Sums over routed tokens."""
        return (mbench.RoutingSums(),)

    def score(self, profile: mbench.Profile) -> np.ndarray:
        """Return float64 [layers, N]."""
        sums = profile.sums(mbench.RoutingSums())
        routed = np.maximum(sums["count"], 1)
        scores: dict[str, np.ndarray] = {
            "mean": sums["gate_norm"] / routed,
            "sum": sums["gate_norm"],
            "count": sums["count"],
            "gate": sums["gate"],
            "norm": sums["norm"],
            "mean-norm": sums["norm"] / routed,
        }
        return scores[self.params.variant]


@mbench.hookimpl
def mbench_components() -> list[type[mbench.Component]]:
    """The scorer above."""
    return [Reap]


@mbench.hookimpl
def mbench_methods() -> list[mbench.Method]:
    """Top-K by the score on one corpus."""
    return [mbench.Method("reap", scorer="reap", corpora=1, description="top-K by the REAP score")]
