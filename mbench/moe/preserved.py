"""Tests, by calling a router, whether and how its gates can be `preserved`."""

from __future__ import annotations

from collections.abc import Callable

import torch

from mbench.core.errors import UnsupportedModel
from mbench.core.model_facts import Gates
from mbench.moe.adapter import MoELayer
from mbench.moe.router import RouterState, trial_input, try_out

GatesOf = Callable[[int, float], tuple[torch.Tensor, torch.Tensor]]
"""(k, scale of the input) -> gates [T, k] and experts [T, k] of the full router."""

SCALES = (1.0, 0.1, 0.01)
"""Of a router's input: gates close to 0 and 1 would hide how the router treats the others."""


def renormalises(layer: MoELayer, gates: GatesOf) -> bool:
    """Tell whether an expert's gate depends on how many others were chosen with it.

    Compares the gates under a small k with those under k = N. They are equal in a router that does
    not renormalise, and proportional within each token in one that does. Raises `UnsupportedModel`
    if the gates are neither.
    """
    few = min(max(2, min(layer.top_k, layer.num_experts // 2)), layer.num_experts - 1)
    always_equal = always_proportional = True
    for scale in SCALES:
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
            "which neither keeps nor renormalises the gates of the experts it chooses"
        )
    return not always_equal


def gates_when_pruned(layer: MoELayer) -> Gates | None:
    """Tell by trial calls with random weights what becomes of gates once experts are gone.

    None where that is not clear. Works on the meta device.
    """
    tokens = trial_input(layer)
    if tokens is None or layer.groups > 1 or layer.num_experts < 4:
        return None
    # Some take a batch of one too, and then mix its tokens.
    hidden = tokens.flatten(0, -2) if _takes(layer, tokens.flatten(0, -2)) else tokens
    full = RouterState.current(layer)
    places: tuple[int, int] | None = None

    def gates(top_k: int, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
        nonlocal places
        full.choosing(layer, top_k).install()
        try:
            output = try_out(layer, hidden * scale)
        finally:
            full.install()
        if places is None:
            # Asked for few experts first: with all, logits have the shape of gates.
            index = [n for n, each in enumerate(output) if not each.is_floating_point()]
            (weights,) = (
                n for n, e in enumerate(output) if n not in index and e.shape[-1] == top_k
            )
            places = weights, index[0]
        chosen, experts = (output[place].reshape(-1, top_k) for place in places)
        return chosen, experts

    try:
        if renormalises(layer, gates):
            return "renormalised"
        every, _ = gates(layer.num_experts, 1.0)
    # A router may raise anything where it is called in a way that its model never does.
    except Exception:
        return None
    sums = every.double().sum(dim=-1)
    return "grown" if _close(sums, sums.mean().expand_as(sums), 1e-4) else "kept"


def _takes(layer: MoELayer, hidden: torch.Tensor) -> bool:
    try:
        try_out(layer, hidden)
    # A router may raise anything for a shape that it does not take.
    except Exception:
        return False
    return True


def contradiction(
    among_all: torch.Tensor, among_kept: torch.Tensor, kept: torch.Tensor, num_experts: int
) -> float:
    """Return the share of tokens whose two choices cannot come from one ranking of the experts.

    `among_all` [T, m] are the best m of all experts, `among_kept` [T, k] the best k of `kept` [K].
    """
    none = torch.zeros(len(among_all), num_experts, dtype=torch.bool, device=kept.device)
    best = none.scatter(1, among_all, True)[:, kept]
    chosen = none.scatter(1, among_kept, True)[:, kept]
    either = (best & ~chosen).any(dim=1) & (chosen & ~best).any(dim=1)
    return float(either.float().mean())


def _shares(gates: torch.Tensor) -> torch.Tensor:
    return gates / gates.sum(dim=-1, keepdim=True).clamp(min=1e-30)


def _close(left: torch.Tensor, right: torch.Tensor, tolerance: float) -> bool:
    return bool(torch.allclose(left, right, rtol=tolerance, atol=1e-3 * tolerance))
