"""What every expert of a layer makes of some tokens, whoever they are routed to."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from mbench.moe.experts import apply_expert, inner_activations
from mbench.moe.quantised.stored_experts import StoredExperts

if TYPE_CHECKING:
    from mbench.moe.adapter import ExpertsModule


def all_outputs(experts: ExpertsModule, hidden: torch.Tensor) -> torch.Tensor:
    """Return the unweighted outputs [t, N, H] of all experts for hidden [t, H]."""
    if _one_by_one(experts, hidden):
        return _of_each(apply_expert, experts, hidden)
    return joint_outputs(experts, hidden)


def all_inner_activations(experts: ExpertsModule, hidden: torch.Tensor) -> torch.Tensor:
    """Return what all experts' down projections are given, [t, N, I] for hidden [t, H]."""
    if _one_by_one(experts, hidden):
        return _of_each(inner_activations, experts, hidden)
    return joint_inner_activations(experts, hidden)


def joint_outputs(experts: ExpertsModule, hidden: torch.Tensor) -> torch.Tensor:
    """The same as `all_outputs` in one product and one batched product, for accelerators."""
    inner = joint_inner_activations(experts, hidden)
    output = _all_projected(experts, "down_proj", inner.transpose(0, 1)).transpose(0, 1)
    return experts.post_expert_norm(output) if experts.has_post_expert_norm else output


def joint_inner_activations(experts: ExpertsModule, hidden: torch.Tensor) -> torch.Tensor:
    """The same as `all_inner_activations` in one product, or one batched product."""
    name = "gate_up_proj" if experts.has_gate else "up_proj"
    if experts.is_transposed:
        given = hidden.expand(experts.num_experts, *hidden.shape)
        rows = _all_projected(experts, name, given).transpose(0, 1)
    else:
        # All experts are given the same: one product with their weights, one below the other.
        bias = getattr(experts, f"{name}_bias").flatten() if experts.has_bias else None
        joint = functional.linear(hidden, getattr(experts, name).flatten(0, 1), bias)
        rows = joint.unflatten(1, (experts.num_experts, -1))
    # A gate may expect two dimensions.
    flat = rows.flatten(0, 1)
    inner: torch.Tensor = experts._apply_gate(flat) if experts.has_gate else experts.act_fn(flat)
    return inner.view(*rows.shape[:2], inner.shape[-1])


def _all_projected(experts: ExpertsModule, name: str, given: torch.Tensor) -> torch.Tensor:
    """Each expert's projection of its own rows, [N, t, out] for [N, t, in]."""
    weight = getattr(experts, name)
    output = torch.bmm(given, weight if experts.is_transposed else weight.transpose(1, 2))
    return output + getattr(experts, f"{name}_bias").unsqueeze(1) if experts.has_bias else output


def _one_by_one(experts: ExpertsModule, hidden: torch.Tensor) -> bool:
    """Whether a loop is better: faster on a CPU, and stored experts are decoded one at a time."""
    return hidden.device.type == "cpu" or isinstance(experts, StoredExperts)


def _of_each(
    compute: Callable[[ExpertsModule, int, torch.Tensor], torch.Tensor],
    experts: ExpertsModule,
    hidden: torch.Tensor,
) -> torch.Tensor:
    results = [compute(experts, expert, hidden) for expert in range(experts.num_experts)]
    return torch.stack(results, dim=1)
