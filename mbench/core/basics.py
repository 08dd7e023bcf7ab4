"""The statistics, the selector and the mask builder that many methods share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from mbench.core.errors import PluginError
from mbench.core.hookspecs import hookimpl
from mbench.core.interfaces import (
    Budget,
    Component,
    ExpertMask,
    MaskBuilder,
    Scores,
    Selection,
    Selector,
    Statistic,
)
from mbench.core.layer_data import LayerBatch

if TYPE_CHECKING:
    import torch


class TopK(Selector):
    """The K highest-scoring experts of every layer on one corpus; ties go to the lower index."""

    name = "top-k"

    def select(
        self, scores: Mapping[str, Scores], budget: Budget, rng: np.random.Generator
    ) -> Selection:
        """Return exactly K experts per layer; raises `PluginError` unless there is one corpus."""
        if len(scores) != 1:
            raise PluginError(f"selector 'top-k' takes scores of one corpus, got {len(scores)}")
        (score,) = scores.values()
        chosen = np.zeros(score.values.shape, dtype=bool)
        np.put_along_axis(chosen, score.ranking()[:, : budget.kept], True, axis=1)
        return Selection(chosen)


class Everything(Selector):
    """Every expert, for builders that choose by themselves."""

    name = "all"

    def select(
        self, scores: Mapping[str, Scores], budget: Budget, rng: np.random.Generator
    ) -> Selection:
        """Return all N experts per layer."""
        return Selection(np.ones((budget.num_layers, budget.num_experts), dtype=bool))


class AsSelected(MaskBuilder):
    """The selection itself, which must hold exactly K experts per layer."""

    name = "as-selected"

    def build(
        self,
        selection: Selection,
        scores: Mapping[str, Scores],
        budget: Budget,
        candidate: ExpertMask | None,
    ) -> ExpertMask:
        """Return the selection as a mask."""
        return ExpertMask(selection.chosen, selection.notes)


class RoutingSums(Statistic):
    """Sums over the tokens that were routed to each expert, float64 [N].

    `count`: such tokens. `gate`: g, the weight the model combined the expert's output with.
    `norm`: ||f||, the L2 norm of the output before it was weighted. `gate_norm`: g * ||f||.
    `squared_norm`: ||f||^2.
    """

    name = "routing-sums"

    def measure(self, batch: LayerBatch) -> Mapping[str, torch.Tensor]:
        """Return this batch's five sums."""
        import torch

        gate = batch.top_k_weight.to(torch.float64)
        norm = batch.output_norm.to(torch.float64)
        values = torch.stack((torch.ones_like(norm), gate, norm, gate * norm, norm * norm))
        sums = values.new_zeros(len(values), batch.num_experts)
        sums.index_add_(1, batch.top_k_index.reshape(-1), values.reshape(len(values), -1))
        names = ("count", "gate", "norm", "gate_norm", "squared_norm")
        return dict(zip(names, sums, strict=True))


class CoActivation(Statistic):
    """Sums over the tokens that were routed to both of two experts, float64 [N, N], symmetric.

    `count`: such tokens. `product`: g_i ||f_i|| g_j ||f_j||, of the gates and output norms that
    `RoutingSums` adds up one by one. The diagonal counts each expert with itself.
    """

    name = "co-activation"

    def measure(self, batch: LayerBatch) -> Mapping[str, torch.Tensor]:
        """Return this batch's two sums, at a cost of k^2 per token whatever N is."""
        import torch

        experts, index = batch.num_experts, batch.top_k_index
        share = batch.top_k_weight.to(torch.float64) * batch.output_norm.to(torch.float64)
        pair = (index.unsqueeze(2) * experts + index.unsqueeze(1)).reshape(-1)
        product = (share.unsqueeze(2) * share.unsqueeze(1)).reshape(-1)
        values = torch.stack((torch.ones_like(product), product))
        sums = values.new_zeros(2, experts * experts).index_add_(1, pair, values)
        count, total = sums.reshape(2, experts, experts)
        return {"count": count, "product": total}


@hookimpl
def mbench_components() -> list[type[Component]]:
    """The selectors and the mask builder; statistics need no name in suites."""
    return [TopK, Everything, AsSelected]
