"""What a statistic is shown of one MoE layer: a batch of tokens on their way, or its weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class LayerBatch:
    """Input, routing and outputs of one MoE layer in one forward call, without padding.

    Shapes: T tokens, H hidden size, N routed experts, k experts per token. Routing is the model's
    own decision, never re-derived.
    """

    layer: str
    """Module path of the layer's experts."""
    num_experts: int
    hidden: torch.Tensor
    """[T, H] input of the experts."""
    top_k_index: torch.Tensor
    """[T, k] experts the model routed each token to."""
    top_k_weight: torch.Tensor
    """[T, k] combine weights the model used."""
    output_norm: torch.Tensor
    """[T, k] float32, L2 norm of each routed expert's output before it is weighted."""
    token: torch.Tensor
    """[T] int64, index of each token in the whole corpus, 0 .. total_tokens - 1."""
    ids: torch.Tensor
    """[T] int64, the token ids."""
    start: int
    """Index of the first token: those of a batch are consecutive, so that which of them are in a
    sample is known without asking the device for `token`."""
    total_tokens: int
    """Tokens of the whole corpus, padding excluded; the same in every batch."""
    sampled: torch.Tensor
    """[t] int64 row numbers of the tokens that `Statistic.sampled_tokens` names."""
    residual: Callable[[], torch.Tensor]
    """Gives the residual stream [T, hidden size of the model] that the block's output is added to;
    raises `UnsupportedModel` where there is none. A statistic that asks for it is left out where
    the model does more than add the two."""
    router_logits: Callable[[], torch.Tensor]
    """Gives [T, N] float32 router logits of the full model; raises `UnsupportedModel` where the
    router has none."""
    routed_outputs: Callable[[], torch.Tensor]
    """Computes the unweighted outputs [T, k, H] of the experts that tokens were routed to."""
    expert_outputs: Callable[[torch.Tensor], torch.Tensor]
    """Given row numbers [t], computes the unweighted outputs [t, N, H] of all experts there. Given
    `sampled` itself, it has them already: they were computed along with the routed ones."""
    inner_activations: Callable[[torch.Tensor], torch.Tensor]
    """Given row numbers [t], computes what the down projections are given, [t, N, I]."""


@dataclass(frozen=True)
class ExpertWeights:
    """The projections of one expert, float32 copies, as `down @ (act(gate @ h) * (up @ h))`."""

    gate: torch.Tensor | None
    """[I, H]; None for experts without a gate."""
    up: torch.Tensor
    """[I, H]."""
    down: torch.Tensor
    """[H, I]."""


@dataclass(frozen=True)
class LayerWeights:
    """The weights of one MoE layer, for statistics that look at no text; all are copies."""

    layer: str
    """Module path of the layer's experts."""
    num_experts: int
    router: torch.Tensor
    """[N, H] float32, the router's row of every expert, on the layer's device."""
    expert: Callable[[int], ExpertWeights]
    """Gives one expert's projections; raises `UnsupportedModel` for experts of another form."""
