"""EASY-EP: an expert matters by what it adds to tokens that the layer changes.

Dong et al. 2025, "Domain-Specific Pruning of Large Mixture-of-Experts Models with Few-shot
Demonstrations" (arXiv 2504.06792), formulas as in its program (github.com/RUCAIBox/EASYEP,
`model_new.py`, `expert_selection.py`). With the residual stream x before the layer, and y = x +
sum of g f over the routed experts, without shared ones, the score is the sum over the tokens routed
to an expert of

    g ||f|| * max(0, 1 - cos(x, y)).

The program takes a few long answers of the model itself as its corpus; here it is the suite's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

import mbench

if TYPE_CHECKING:
    import torch


class TokenContributions(mbench.Statistic):
    """Sums of g ||f|| over routed tokens, each times how far the layer turns the token."""

    name = "token-contributions"

    def measure(self, batch: mbench.LayerBatch) -> Mapping[str, torch.Tensor]:
        """Return `importance`, float64 [N].

        Raises `UnsupportedModel` where no residual stream has the experts' width.
        """
        import torch

        before = batch.residual().float()
        outputs = batch.routed_outputs().float()
        if before.shape[1] != outputs.shape[2]:
            raise mbench.UnsupportedModel(
                f"{batch.layer}: its experts give {outputs.shape[2]} dimensions, not the"
                f" {before.shape[1]} of the residual stream"
            )
        gate = batch.top_k_weight.float()
        after = before + torch.einsum("tk,tkh->th", gate, outputs)
        similarity = torch.nn.functional.cosine_similarity(before, after, dim=1)
        contribution = (1 - similarity).clamp(min=0)[:, None] * gate * batch.output_norm
        sums = torch.zeros(batch.num_experts, dtype=torch.float64, device=gate.device)
        sums.index_add_(0, batch.top_k_index.reshape(-1), contribution.double().reshape(-1))
        return {"importance": sums}


class EasyEp(mbench.Scorer):
    """Sum over routed tokens of g * ||f||, times one minus the similarity of before and after."""

    name = "easy-ep"
    needs = (TokenContributions(),)

    def score(self, profile: mbench.Profile) -> np.ndarray:
        """Return float64 [layers, N]."""
        return profile.sums(TokenContributions())["importance"]


@mbench.hookimpl
def mbench_components() -> list[type[mbench.Component]]:
    """The scorer above."""
    return [EasyEp]


@mbench.hookimpl
def mbench_methods() -> list[mbench.Method]:
    """Top-K by the score on one corpus."""
    return [
        mbench.Method(
            "easy-ep",
            scorer="easy-ep",
            corpora=1,
            description="top-K by gate times norm, weighted by how far tokens turn (EASY-EP)",
        )
    ]
