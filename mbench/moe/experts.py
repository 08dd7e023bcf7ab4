"""Computes routed experts (a loop on the CPU, a grouped kernel elsewhere) in a model's place.

A model looks up the function that computes its experts in a registry of transformers, so another
one can be set without touching the model's code.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS, _grouped_linear

from mbench.moe.adapter import MoELayer
from mbench.moe.joint_rows import FEWEST, rows_stay_equal
from mbench.moe.offload import execution_device
from mbench.moe.quantised.stored_experts import StoredExperts

if TYPE_CHECKING:
    from mbench.moe.adapter import ExpertsModule

_numbers = itertools.count()

MOST_VALUES = 1 << 26
"""Numbers in the outputs of all experts that are computed together with the routed ones."""

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


@dataclass(frozen=True)
class EveryExpert:
    """Tokens on which every expert is computed together with those that are routed to it."""

    rows: torch.Tensor
    """int64 [t] row numbers."""
    outputs: torch.Tensor
    """[t, N, H], where the unweighted outputs are written."""


def sorted_loop(
    experts: ExpertsModule,
    hidden: torch.Tensor,
    top_k_index: torch.Tensor,
    top_k_weights: torch.Tensor,
    norms: torch.Tensor | None = None,
    every: Sequence[EveryExpert] = (),
) -> torch.Tensor:
    """Compute experts one after another on the rows routed to them; return [T, H].

    If `norms` (float32 [T, k]) is given, it receives the L2 norms of the unweighted outputs, taken
    while the outputs are still in the cache.
    """
    order = torch.argsort(top_k_index.reshape(-1), stable=True)
    counts = torch.bincount(top_k_index.reshape(-1), minlength=experts.num_experts).tolist()
    tokens = (order // top_k_index.shape[1]).split(counts)
    # Sums of a few experts lose bits in bfloat16: weigh and add in float32.
    weights = top_k_weights.reshape(-1)[order].unsqueeze(-1).to(torch.float32).split(counts)
    total = torch.zeros(hidden.shape, dtype=torch.float32, device=hidden.device)
    sampled = [each.rows for each in every]
    joined = bool(every) and _may_be_joined(experts, hidden, sampled)
    norms_of = []
    for expert, (chosen, weight) in enumerate(zip(tokens, weights, strict=True)):
        outputs = _outputs(experts, expert, hidden, [chosen, *sampled], joined)
        for each, output in zip(every, outputs[1:], strict=True):
            each.outputs[:, expert] = output
        if len(chosen):
            output = outputs[0].to(torch.float32)
            if norms is not None:
                norms_of.append(torch.linalg.vector_norm(output, dim=-1))
            total.index_add_(0, chosen, output.mul_(weight))
    if norms is not None:
        norms.view(-1)[order] = torch.cat(norms_of)
    return total.to(hidden.dtype)


def _may_be_joined(
    experts: ExpertsModule, hidden: torch.Tensor, rows: Sequence[torch.Tensor]
) -> bool:
    if isinstance(experts, StoredExperts) or experts.is_transposed:
        return False
    width, dtype = hidden.shape[1], hidden.dtype
    inner = experts.down_proj.shape[2]
    return (
        min(map(len, rows)) >= FEWEST
        and rows_stay_equal(width, inner * (2 if experts.has_gate else 1), dtype)
        and rows_stay_equal(inner, width, dtype)
    )


def _outputs(
    experts: ExpertsModule,
    expert: int,
    hidden: torch.Tensor,
    rows: Sequence[torch.Tensor],
    joined: bool,
) -> Sequence[torch.Tensor]:
    """One expert's outputs for several lists of rows, in one product if they may be joined."""
    if joined and len(rows[0]) >= FEWEST:
        together = apply_expert(experts, expert, hidden.index_select(0, torch.cat(list(rows))))
        outputs: Sequence[torch.Tensor] = together.split([*map(len, rows)])
        return outputs
    given = [hidden.index_select(0, each) for each in rows]
    return [apply_expert(experts, expert, each) if len(each) else each for each in given]


def sorted_groups(
    experts: ExpertsModule,
    hidden: torch.Tensor,
    top_k_index: torch.Tensor,
    top_k_weights: torch.Tensor,
    norms: torch.Tensor,
) -> torch.Tensor:
    """The same by grouped matrix products, which need no count of rows on the host.

    The loop would have to read the counts back from the accelerator and start thousands of small
    kernels. This does the same products in one launch each, as the stock grouped forward does.
    """
    output, place = _grouped(experts, hidden, *_routed_pairs(top_k_index))
    pairs = output[place].view(*top_k_index.shape, -1)
    torch.linalg.vector_norm(pairs, dim=-1, dtype=torch.float32, out=norms)
    return (pairs * top_k_weights.unsqueeze(-1)).sum(dim=1).to(hidden.dtype)


def _routed_pairs(top_k_index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Expert and token of every routed pair, int64 [T k] each."""
    pairs = torch.arange(top_k_index.numel(), device=top_k_index.device)
    return top_k_index.reshape(-1), pairs // top_k_index.shape[1]


def _grouped(
    experts: ExpertsModule, hidden: torch.Tensor, expert: torch.Tensor, token: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Unweighted outputs [P, H] of pairs of expert and token, by expert, and each pair's place."""
    expert, order = torch.sort(expert, stable=True)
    numbers = torch.arange(experts.num_experts, device=expert.device)
    ends = torch.searchsorted(expert, numbers, right=True, out_int32=True)

    def project(name: str, rows: torch.Tensor) -> torch.Tensor:
        bias = getattr(experts, f"{name}_bias")[expert] if experts.has_bias else None
        output: torch.Tensor = _grouped_linear(
            rows, getattr(experts, name), ends, bias=bias, is_transposed=experts.is_transposed
        )
        return output

    rows = hidden[token[order]]
    if experts.has_gate:
        inner = experts._apply_gate(project("gate_up_proj", rows))
    else:
        inner = experts.act_fn(project("up_proj", rows))
    output = project("down_proj", inner)
    if experts.has_post_expert_norm:
        output = experts.post_expert_norm(output)
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order), device=order.device)
    return output, place


def apply_with_norms(
    experts: ExpertsModule,
    hidden: torch.Tensor,
    top_k_index: torch.Tensor,
    top_k_weights: torch.Tensor,
    samples: Sequence[torch.Tensor] = (),
) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor | None]]:
    """Return the weighted sum [T, H] and the float32 norms [T, k] of the unweighted outputs.

    Further, for each of some samples, given as row numbers [t], the outputs [t, N, H] of all
    experts: None where it is no gain to compute them together, or they would take much memory.
    """
    norms = torch.empty(top_k_index.shape, dtype=torch.float32, device=hidden.device)
    routing = top_k_index, top_k_weights, norms
    if hidden.device.type != "cpu":
        return sorted_groups(experts, hidden, *routing), norms, [None] * len(samples)
    values = experts.num_experts * hidden.shape[1]
    outputs = [
        hidden.new_empty(len(rows), experts.num_experts, hidden.shape[1])
        if 0 < len(rows) * values <= MOST_VALUES
        else None
        for rows in samples
    ]
    every = [
        EveryExpert(rows, each)
        for rows, each in zip(samples, outputs, strict=True)
        if each is not None
    ]
    return sorted_loop(experts, hidden, *routing, every), norms, outputs


def routed_outputs(
    experts: ExpertsModule, hidden: torch.Tensor, top_k_index: torch.Tensor
) -> torch.Tensor:
    """Return the unweighted outputs [T, k, H] of the experts that tokens are routed to."""
    if hidden.device.type != "cpu":
        output, place = _grouped(experts, hidden, *_routed_pairs(top_k_index))
        return output[place].view(*top_k_index.shape, -1)
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
