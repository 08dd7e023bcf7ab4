"""SEER's soft counting: the probability mass that the router gives to an expert.

Muzio et al. 2024, "SEER-MoE" (arXiv 2404.05089), prune by heavy hitters: experts are counted by
the tokens routed to them, or softly by the router's probabilities. Only the abstract and summaries
of it were read. Taken here: the sum over all tokens, routed to the expert or not, of the softmax
over all N logits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

import mbench

if TYPE_CHECKING:
    import torch


class SoftMassSums(mbench.Statistic):
    """Sums of the router's probabilities over all tokens, float64 [N]."""

    name = "soft-mass-sums"

    def measure(self, batch: mbench.LayerBatch) -> Mapping[str, torch.Tensor]:
        """Return `mass`; raises `UnsupportedModel` for a router without logits."""
        import torch

        probability = batch.router_logits().softmax(dim=1)
        return {"mass": probability.sum(dim=0, dtype=torch.float64)}


class SoftMass(mbench.Scorer):
    """Sum over all tokens of the softmax of the router's logits."""

    name = "soft-mass"
    needs = (SoftMassSums(),)

    def score(self, profile: mbench.Profile) -> np.ndarray:
        """Return float64 [layers, N]."""
        return profile.sums(SoftMassSums())["mass"]


@mbench.hookimpl
def mbench_components() -> list[type[mbench.Component]]:
    """The scorer above."""
    return [SoftMass]


@mbench.hookimpl
def mbench_methods() -> list[mbench.Method]:
    """Top-K by the mass on one corpus."""
    return [
        mbench.Method(
            "seer",
            scorer="soft-mass",
            corpora=1,
            description="top-K by the router's probability mass (SEER-MoE's soft counting)",
        )
    ]
