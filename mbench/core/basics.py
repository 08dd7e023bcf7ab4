"""The statistic, the selector and the mask builder that most methods share."""

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
    """

    name = "routing-sums"

    def measure(self, batch: LayerBatch) -> Mapping[str, torch.Tensor]:
        """Return this batch's four sums."""
        import torch

        gate = batch.top_k_weight.to(torch.float32)
        norm = batch.output_norm
        values = torch.stack((torch.ones_like(norm), gate, norm, gate * norm)).to(torch.float64)
        sums = values.new_zeros(len(values), batch.num_experts)
        sums.index_add_(1, batch.top_k_index.reshape(-1), values.reshape(len(values), -1))
        return dict(zip(("count", "gate", "norm", "gate_norm"), sums, strict=True))


@hookimpl
def mbench_components() -> list[type[Component]]:
    """The selector and the mask builder; the statistic needs no name in suites."""
    return [TopK, AsSelected]
