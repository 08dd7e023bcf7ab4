"""Scores from weights alone: no text is read and no forward pass is run.

AIMER (Liu et al. 2026, arXiv 2603.18492; read in its program, github.com/ZongfangLiu/AIMER): over
all n weights w of an expert's projections, (sum |w| / n) / sqrt(sum w^2 / n). It is 1 for weights
of one magnitude and small for few large ones; experts of the highest values are dropped. An expert
of zeros counts as 0.

The router norm is the L2 norm of an expert's row in the router. Chowdhury et al. 2024 (arXiv
2405.16646) prune experts whose norm changed least in fine-tuning; without the model before it, the
norm itself is taken: experts of the smallest are dropped.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

import mbench

if TYPE_CHECKING:
    import torch


class ExpertWeightSums(mbench.Statistic):
    """Sums over the weights of an expert's projections, without biases, float64 [N]."""

    name = "expert-weight-sums"

    def inspect(self, weights: mbench.LayerWeights) -> Mapping[str, torch.Tensor]:
        """Return `number` of weights, sum of their `magnitude`, and of their `square`."""
        import torch

        rows = []
        for expert in range(weights.num_experts):
            own = weights.expert(expert)
            parts = [part for part in (own.gate, own.up, own.down) if part is not None]
            sums = [
                torch.stack(
                    (part.abs().sum(dtype=torch.float64), part.square().sum(dtype=torch.float64))
                )
                for part in parts
            ]
            number = sums[0].new_tensor([sum(part.numel() for part in parts)])
            rows.append(torch.cat((number, torch.stack(sums).sum(dim=0))))
        columns = torch.stack(rows, dim=1)
        return dict(zip(("number", "magnitude", "square"), columns, strict=True))


class RouterNorms(mbench.Statistic):
    """Norms of the router's rows, [N]."""

    name = "router-norms"

    def inspect(self, weights: mbench.LayerWeights) -> Mapping[str, torch.Tensor]:
        """Return `norm`."""
        import torch

        return {"norm": torch.linalg.vector_norm(weights.router, dim=1, dtype=torch.float64)}


class Aimer(mbench.Scorer):
    """Minus the mean magnitude of an expert's weights over their root mean square."""

    name = "aimer"
    needs = (ExpertWeightSums(),)

    def score(self, profile: mbench.Profile) -> np.ndarray:
        """Return float64 [layers, N], from -1 to 0."""
        sums = profile.sums(ExpertWeightSums())
        scale = np.sqrt(sums["square"] * sums["number"])
        scores: np.ndarray = -sums["magnitude"] / np.where(scale > 0, scale, 1)
        return scores


class RouterNorm(mbench.Scorer):
    """Norm of an expert's row in the router."""

    name = "router-norm"
    needs = (RouterNorms(),)

    def score(self, profile: mbench.Profile) -> np.ndarray:
        """Return float64 [layers, N]."""
        return profile.sums(RouterNorms())["norm"]


@mbench.hookimpl
def mbench_components() -> list[type[mbench.Component]]:
    """The scorers above."""
    return [Aimer, RouterNorm]


@mbench.hookimpl
def mbench_methods() -> list[mbench.Method]:
    """Top-K by each."""
    return [
        mbench.Method(
            "aimer",
            scorer="aimer",
            corpora=0,
            description="drops experts whose weights are the most even in size (AIMER), no text",
        ),
        mbench.Method(
            "router-norm",
            scorer="router-norm",
            corpora=0,
            description="top-K by the norm of an expert's row in the router, no text",
        ),
    ]
