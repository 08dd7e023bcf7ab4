"""Computes routed experts (a loop on the CPU, a grouped kernel elsewhere) in a model's place.

A model looks up the function that computes its experts in a registry of transformers, so another
one can be set without touching the model's code.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch.nn import functional
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS, grouped_mm_experts_forward

from mbench.moe.adapter import MoELayer
from mbench.moe.offload import execution_device
from mbench.moe.quantised.stored_experts import StoredExperts

if TYPE_CHECKING:
    from mbench.moe.adapter import ExpertsModule

_numbers = itertools.count()

ExpertsFunction = Callable[
    ["ExpertsModule", torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor
]
"""(experts, hidden [T, H], top_k_index [T, k], top_k_weights [T, k]) -> output [T, H]."""


def apply_expert(experts: ExpertsModule, expert: int, hidden: torch.Tensor) -> torch.Tensor:
    """Return one expert's unweighted output [T, H] for hidden [T, H]."""
    inner = inner_activations(experts, expert, hidden)
    output = _project(experts, "down_proj", expert, inner)
    return experts.post_expert_norm(output) if experts.has_post_expert_norm else output


def inner_activations(experts: ExpertsModule, expert: int, hidden: torch.Tensor) -> torch.Tensor:
    """Return what one expert's down projection is given, [T, I] for hidden [T, H]."""
    if experts.has_gate:
        return experts._apply_gate(_project(experts, "gate_up_proj", expert, hidden))
    return experts.act_fn(_project(experts, "up_proj", expert, hidden))


def _project(experts: ExpertsModule, name: str, expert: int, hidden: torch.Tensor) -> torch.Tensor:
    if isinstance(experts, StoredExperts):
        weight = experts.weight_of(name, expert)
    else:
        weight = getattr(experts, name)[expert]
    bias = getattr(experts, f"{name}_bias")[expert] if experts.has_bias else None
    return functional.linear(hidden, weight.T if experts.is_transposed else weight, bias)


def sorted_loop(
    experts: ExpertsModule,
    hidden: torch.Tensor,
    top_k_index: torch.Tensor,
    top_k_weights: torch.Tensor,
    norms: torch.Tensor | None = None,
) -> torch.Tensor:
    """Compute experts one after another on the rows routed to them; return [T, H].

    If `norms` (float32 [T, k]) is given, it receives the L2 norms of the unweighted outputs, taken
    while the outputs are still in the cache.
    """
    top_k = top_k_index.shape[1]
    order = torch.argsort(top_k_index.reshape(-1), stable=True)
    counts = torch.bincount(top_k_index.reshape(-1), minlength=experts.num_experts)
    tokens = order // top_k
    weights = top_k_weights.reshape(-1)[order].unsqueeze(-1)
    flat_norms = norms.view(-1) if norms is not None else None
    # Sums of a few experts lose bits in bfloat16: add in float32, as the grouped kernel does.
    total = torch.zeros(hidden.shape, dtype=torch.float32, device=hidden.device)
    start = 0
    for expert, count in enumerate(counts.tolist()):
        if count == 0:
            continue
        rows = slice(start, start + count)
        start += count
        output = apply_expert(experts, expert, hidden[tokens[rows]])
        if flat_norms is not None:
            flat_norms[order[rows]] = torch.linalg.vector_norm(output, dim=-1, dtype=torch.float32)
        total.index_add_(0, tokens[rows], (output * weights[rows]).to(torch.float32))
    return total.to(hidden.dtype)


def _grouped_pairs(
    experts: ExpertsModule, hidden: torch.Tensor, top_k_index: torch.Tensor
) -> torch.Tensor:
    """The unweighted outputs [T, k, H] by the stock grouped kernel."""
    num_tokens, top_k = top_k_index.shape
    pairs = hidden.repeat_interleave(top_k, dim=0)
    ones = torch.ones_like(pairs[:, :1])
    output: torch.Tensor = grouped_mm_experts_forward(
        experts, pairs, top_k_index.reshape(-1, 1), ones
    )
    return output.view(num_tokens, top_k, -1)


def pairwise_grouped(
    experts: ExpertsModule,
    hidden: torch.Tensor,
    top_k_index: torch.Tensor,
    top_k_weights: torch.Tensor,
    norms: torch.Tensor,
) -> torch.Tensor:
    """The same through the stock grouped kernel, one row per token and expert with weight one.

    The loop would have to read the counts back from the accelerator and start thousands of small
    kernels. The grouped kernel does the same matrix products in one launch each, at the price of
    copying [T * k, H], which is cheap in comparison.
    """
    output = _grouped_pairs(experts, hidden, top_k_index)
    norms.copy_(torch.linalg.vector_norm(output, dim=-1, dtype=torch.float32))
    return (output * top_k_weights.unsqueeze(-1)).sum(dim=1).to(hidden.dtype)


def apply_with_norms(
    experts: ExpertsModule,
    hidden: torch.Tensor,
    top_k_index: torch.Tensor,
    top_k_weights: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the weighted sum [T, H] and the float32 norms [T, k] of the unweighted outputs."""
    norms = torch.empty(top_k_index.shape, dtype=torch.float32, device=hidden.device)
    compute = sorted_loop if hidden.device.type == "cpu" else pairwise_grouped
    return compute(experts, hidden, top_k_index, top_k_weights, norms), norms


def routed_outputs(
    experts: ExpertsModule, hidden: torch.Tensor, top_k_index: torch.Tensor
) -> torch.Tensor:
    """Return the unweighted outputs [T, k, H] of the experts that tokens are routed to."""
    if hidden.device.type != "cpu":
        return _grouped_pairs(experts, hidden, top_k_index)
    flat = top_k_index.reshape(-1)
    outputs = hidden.new_empty(len(flat), hidden.shape[1])
    for expert in flat.unique().tolist():
        pairs = (flat == expert).nonzero()[:, 0]
        outputs[pairs] = apply_expert(experts, expert, hidden[pairs // top_k_index.shape[1]])
    return outputs.view(*top_k_index.shape, -1)


@contextlib.contextmanager
def experts_function(layers: Sequence[MoELayer], function: ExpertsFunction) -> Iterator[None]:
    """Let `function` compute the experts of `layers`, and restore the previous one on exit."""
    name = f"mbench-{next(_numbers)}"
    # The decorator of an experts class reads this field of the config the experts were built with.
    configs = [layer.experts.config for layer in layers]
    previous = [(config, config._experts_implementation) for config in configs]
    ALL_EXPERTS_FUNCTIONS[name] = function
    try:
        for config in configs:
            config._experts_implementation = name
        yield
    finally:
        for config, implementation in previous:
            config._experts_implementation = implementation
        ALL_EXPERTS_FUNCTIONS.pop(name)


def fast_experts(layers: Sequence[MoELayer]) -> contextlib.AbstractContextManager[None]:
    """Compute experts the fastest way on the layers' device; outputs are equal to rounding.

    On the CPU that is the sorted loop; accelerators keep the model's own implementation.
    """
    if all(execution_device(layer.experts).type == "cpu" for layer in layers):
        return experts_function(layers, sorted_loop)
    return contextlib.nullcontext()
