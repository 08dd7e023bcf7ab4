"""How often, how strongly and with what effect each expert was used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mbench.core.interfaces import LayerBatch, Statistic

if TYPE_CHECKING:
    import torch


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
