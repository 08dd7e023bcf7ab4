"""How often, how strongly and with what effect each expert was used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from mbench.interfaces import LayerBatch, Profile, Statistic

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


def gate_mass(profile: Profile) -> np.ndarray:
    """Return the mean sum of a token's gates per layer, [L], from collected `RoutingSums`.

    For a router that does not renormalise its gates this is the probability mass of the chosen
    experts; slicing the router can inflate the gates by up to its inverse. Otherwise it is the
    constant the gates are scaled to.
    """
    return profile.sums(RoutingSums())["gate"].sum(axis=1) / profile.tokens
