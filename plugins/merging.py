"""What methods that merge experts share: two statistics, and each expert's share of its group."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

import mbench

from .expert_sparsity import sample_roles

if TYPE_CHECKING:
    import torch

VALUES_AT_ONCE = 1 << 26
"""Numbers of expert outputs in memory at a time: 256 MiB in float32."""


class TokenSample(mbench.Parameters):
    """The random sample of the corpus's tokens for which all experts are computed."""

    tokens: int = Field(default=8192, ge=1)
    """Tokens in the sample; a shorter corpus is taken whole."""
    seed: int = Field(default=0, ge=0)
    """Seed of the sample."""


def sampled_rows(batch: mbench.LayerBatch, params: TokenSample) -> torch.Tensor:
    """Row numbers [t] of the batch's tokens that are in the sample."""
    import torch

    roles = sample_roles(batch.total_tokens, params.tokens, 0, params.seed)
    rows = np.flatnonzero(roles[batch.start : batch.start + len(batch.hidden)])
    return torch.from_numpy(rows).to(batch.hidden.device, non_blocking=True)


class RouterProducts(mbench.Statistic):
    """Inner products of two experts' router logits over all tokens.

    `products` [N, N]: sum over tokens of logit i times logit j.
    """

    name = "router-products"

    def measure(self, batch: mbench.LayerBatch) -> Mapping[str, torch.Tensor]:
        """Return this batch's products; raises `UnsupportedModel` where there are no logits."""
        logits = batch.router_logits().double()
        return {"products": logits.T @ logits}


class MeanOutputsParams(TokenSample):
    """The sample, and what outputs are multiplied by."""

    gated: bool = False
    """Whether an output is multiplied by the expert's softmax over the router logits of all."""


class MeanOutputs(mbench.Statistic):
    """Sums of every expert's output over a sample of all tokens, whoever they are routed to.

    `output` [N, H] and `tokens` [N], the number of tokens in the sum. All experts are computed on
    the sample, N times a routed expert's work.
    """

    name = "mean-outputs"
    Params = MeanOutputsParams
    params: MeanOutputsParams

    def sampled_tokens(self, total_tokens: int) -> np.ndarray:
        """The sample."""
        roles = sample_roles(total_tokens, self.params.tokens, 0, self.params.seed)
        return np.flatnonzero(roles)

    def measure(self, batch: mbench.LayerBatch) -> Mapping[str, torch.Tensor]:
        """Return this batch's sums; raises `UnsupportedModel` if gates need logits there aren't."""
        import torch

        rows = batch.sampled
        experts, width = batch.num_experts, batch.hidden.shape[1]
        total = torch.zeros(experts, width, dtype=torch.float64, device=rows.device)
        gates = batch.router_logits().softmax(dim=1) if self.params.gated else None
        at_once = max(1, VALUES_AT_ONCE // (experts * width))
        for part in (rows,) if len(rows) <= at_once else rows.split(at_once):
            outputs = batch.expert_outputs(part).float()
            if gates is not None:
                outputs = outputs * gates[part].unsqueeze(-1)
            total += outputs.sum(dim=0, dtype=torch.float64)
        return {"output": total, "tokens": torch.full_like(total[:, 0], len(rows))}


def pooled(
    scores: Mapping[str, mbench.Scores], statistic: mbench.Statistic
) -> dict[str, np.ndarray]:
    """Sums over all corpora, float64 [layers, N, ...] by array name."""
    totals: dict[str, np.ndarray] = {}
    for score in scores.values():
        for name, values in score.profile.sums(statistic).items():
            totals[name] = totals[name] + values if name in totals else values
    return totals


def cosine(products: np.ndarray) -> np.ndarray:
    """Cosines [N, N] from inner products [N, N]; 0 with a vector that is 0."""
    norms = np.sqrt(np.diag(products))
    lengths = np.outer(norms, norms)
    cosines: np.ndarray = np.divide(
        products, lengths, out=np.zeros_like(products), where=lengths > 0
    )
    return cosines.clip(-1, 1)


def groups(into: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Every kept expert of one layer, into [N], with all members of its group, itself included."""
    for kept in np.unique(into):
        yield int(kept), np.flatnonzero(into == kept)


def shares(usage: np.ndarray, into: np.ndarray) -> np.ndarray:
    """float32 [layers, N], each expert's part of its group's usage; equal parts if that is 0."""
    result = np.zeros(usage.shape, dtype=np.float32)
    for layer, row in enumerate(into):
        for _, members in groups(row):
            weights = usage[layer, members]
            total = weights.sum()
            result[layer, members] = weights / total if total > 0 else 1 / len(members)
    return result
