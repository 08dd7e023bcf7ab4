"""Does a router renormalise the gates of the experts it chose?"""

from __future__ import annotations

from collections.abc import Callable

import torch

from mbench.errors import UnsupportedModel
from mbench.moe.adapter import MoELayer

Gates = Callable[[int, float], tuple[torch.Tensor, torch.Tensor]]
"""(k, scale of the input) -> gates [T, k] and experts [T, k] of the full router."""


def renormalises(layer: MoELayer, gates: Gates) -> bool:
    """Tell whether an expert's gate depends on how many others were chosen with it.

    Compares the gates under a small k with those under k = N. They are equal in a router that does
    not renormalise, and proportional within each token in one that does. Scaled inputs are tried
    as well, because a router that is sure of its choice gives nearly all weight to it either way.
    Raises `UnsupportedModel` if the gates are neither.
    """
    few = min(max(2, min(layer.top_k, layer.num_experts // 2)), layer.num_experts - 1)
    always_equal = always_proportional = True
    for scale in (1.0, 0.1, 0.01):
        some, index = gates(few, scale)
        every, every_index = gates(layer.num_experts, scale)
        if some.shape[-1] != few or every.shape[-1] != layer.num_experts:
            raise UnsupportedModel(
                f"{layer.path}: `preserved` gates need a router that can choose any number of "
                f"experts, and {type(layer.router).__name__} cannot"
            )
        tolerance = max(4 * torch.finfo(some.dtype).eps, 1e-5)
        table = torch.zeros_like(every, dtype=torch.float64)
        reference = table.scatter_(1, every_index, every.double()).gather(1, index)
        always_equal &= _close(some.double(), reference, tolerance)
        always_proportional &= _close(_shares(some.double()), _shares(reference), tolerance)
    if not (always_equal or always_proportional):
        raise UnsupportedModel(
            f"{layer.path}: `preserved` gates are not defined for {type(layer.router).__name__}, "
            "which neither keeps nor renormalises the gates of the experts it chose"
        )
    return not always_equal


def _shares(gates: torch.Tensor) -> torch.Tensor:
    return gates / gates.sum(dim=-1, keepdim=True).clamp(min=1e-30)


def _close(left: torch.Tensor, right: torch.Tensor, tolerance: float) -> bool:
    return bool(torch.allclose(left, right, rtol=tolerance, atol=1e-3 * tolerance))
