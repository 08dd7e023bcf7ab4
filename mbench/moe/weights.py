"""The weights of MoE layers, as statistics that look at them are shown them: float32 copies."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from mbench.core.errors import UnsupportedModel
from mbench.core.layer_data import ExpertWeights, LayerWeights
from mbench.moe.adapter import MoELayer
from mbench.moe.offload import execution_device, own_tensor

if TYPE_CHECKING:
    from mbench.moe.adapter import ExpertsModule


def layer_weights(layer: MoELayer) -> LayerWeights:
    """Return copies of a layer's weights, on the device that computes it, wherever they are kept.

    Tensors of experts are read when first asked for, and freed with what is returned. Raises
    `UnsupportedModel` if the router has not one row per expert, e.g. while a mask is active.
    """
    device = execution_device(layer.experts)

    @functools.cache
    def stacked(name: str) -> torch.Tensor:
        return own_tensor(layer.experts, name)

    def expert(number: int) -> ExpertWeights:
        if not 0 <= number < layer.num_experts:
            raise IndexError(f"{layer.path} has experts 0 to {layer.num_experts - 1}, not {number}")

        def projection(name: str) -> torch.Tensor:
            weight = stacked(name)[number].detach().to(device, torch.float32, copy=True)
            return weight.T.contiguous() if layer.experts.is_transposed else weight

        gate, up = _gate_and_up(layer.experts, projection)
        return ExpertWeights(gate, up, projection("down_proj"))

    router = _router_rows(layer).detach().to(device, torch.float32, copy=True)
    return LayerWeights(layer.path, layer.num_experts, router, expert)


def _router_rows(layer: MoELayer) -> torch.Tensor:
    """[N, H], the only tensor of the router that has a row per expert."""
    matrices = [
        each.value for each in layer.router_tensors if each.value.dim() == 2 and not each.dim
    ]
    if len(matrices) != 1 or len(matrices[0]) != layer.num_experts:
        shapes = [tuple(matrix.shape) for matrix in matrices]
        raise UnsupportedModel(
            f"{layer.path}: the router's weights have shapes {shapes} where one of"
            f" {layer.num_experts} rows was expected"
        )
    return matrices[0]


def _gate_and_up(
    experts: ExpertsModule, projection: Callable[[str], torch.Tensor]
) -> tuple[torch.Tensor | None, torch.Tensor]:
    """[I, H] each, from the form in which transformers stores the two as one."""
    if not experts.has_gate:
        return None, projection("up_proj")
    both = projection("gate_up_proj")
    if experts.is_concatenated:
        half = len(both) // 2
        return both[:half], both[half:]
    return both[::2].contiguous(), both[1::2].contiguous()
