"""Gates as the program published with REAP takes them, whatever the model's own router does.

Read in `pruning_metrics.py` and `main.py` of github.com/CerebrasResearch/reap (commit 1970473): a
softmax over all N of the logits that the router returns, for sigmoid routers too; the experts are
the top-k of these logits, without a correction bias or groups; optionally divided by their sum over
the top-k, and then never below the least step of float32. A model whose router has a correction
bias may therefore route a token to other experts than are counted here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import mbench

if TYPE_CHECKING:
    import torch

VALUES_AT_ONCE = 1 << 26
"""Numbers of expert outputs in memory at a time: 256 MiB in float32."""


class PublishedRoutingSums(mbench.Statistic):
    """The sums of `mbench.RoutingSums` with gates and experts as REAP's program has them."""

    name = "published-routing-sums"

    class Params(mbench.Parameters):
        """The gates."""

        renormalised: bool = False
        """Whether a token's gates are divided by their sum over its top-k."""

    def measure(self, batch: mbench.LayerBatch) -> Mapping[str, torch.Tensor]:
        """Return five sums, float64 [N]; raises `UnsupportedModel` for a router without logits."""
        import torch

        logits = batch.router_logits()
        index = _top_of(logits, batch.top_k_index)
        gates = logits.softmax(dim=1)
        if self.params.renormalised:
            gates = gates / gates.gather(1, index).sum(dim=1, keepdim=True)
            gates = gates.clamp(min=torch.finfo(gates.dtype).eps)
        gate = gates.gather(1, index).to(torch.float64)
        norm = _norms(batch, index).to(torch.float64)
        values = torch.stack((torch.ones_like(norm), gate, norm, gate * norm, norm * norm))
        sums = values.new_zeros(len(values), batch.num_experts)
        sums.index_add_(1, index.reshape(-1), values.reshape(len(values), -1))
        names = ("count", "gate", "norm", "gate_norm", "squared_norm")
        return dict(zip(names, sums, strict=True))


def _top_of(logits: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """[T, k] the experts of the highest logits [T, N]: those `chosen` [T, k] if none is higher."""
    top = logits.topk(chosen.shape[1], dim=1)
    own = logits.gather(1, chosen).sort(dim=1, descending=True).values
    return chosen.where((own == top.values).all(dim=1, keepdim=True), top.indices)


def _norms(batch: mbench.LayerBatch, index: torch.Tensor) -> torch.Tensor:
    """float32 [T, k], norms of the outputs of the experts `index`, computed where not known."""
    import torch

    shape = len(index), batch.num_experts
    known = batch.output_norm.new_zeros(shape).scatter(1, batch.top_k_index, batch.output_norm)
    routed = torch.zeros(shape, dtype=torch.bool, device=index.device)
    routed.scatter_(1, batch.top_k_index, True)
    missing = (~routed.gather(1, index)).any(dim=1).nonzero()[:, 0]
    at_once = max(1, VALUES_AT_ONCE // (batch.num_experts * batch.hidden.shape[1]))
    for start in range(0, len(missing), at_once):
        rows = missing[start : start + at_once]
        known[rows] = torch.linalg.vector_norm(
            batch.expert_outputs(rows), dim=2, dtype=torch.float32
        )
    return known.gather(1, index)
