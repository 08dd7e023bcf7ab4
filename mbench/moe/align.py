"""Which inner neurons of two experts correspond to each other, judged by their weights.

The order of an expert's inner neurons means nothing, so that experts which compute nearly the same
may have them in different orders. Their weights must not be averaged before like neurons meet.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from mbench.core.layer_data import ExpertWeights

if TYPE_CHECKING:
    import torch


def matched(expert: Callable[[int], ExpertWeights], into: np.ndarray) -> np.ndarray:
    """Return int64 [N, I], the order of every expert's neurons that fits the one it goes into.

    Neuron `order[e, i]` of expert e corresponds to neuron i of the expert `into[e]`: the order is
    the one with the greatest sum over i of the inner products of both neurons' weights (rows of
    gate and up, columns of down), by optimal assignment. Experts that go into themselves or
    into none (-1) keep their own order. It is the weight matching of Li et al. 2024 ("Merge, Then
    Compress", code of UNITES-Lab/MC-SMoE); its time grows with the cube of I.

    Args:
        expert: gives one expert's projections.
        into: int64 [N].
    """
    from scipy.optimize import linear_sum_assignment

    order = np.tile(np.arange(len(expert(0).up)), (len(into), 1))
    for kept in np.unique(into[into >= 0]):
        members = np.flatnonzero(into == kept)
        if len(members) == 1:
            continue
        reference = _neurons(expert(int(kept)))
        for member in members[members != kept]:
            similarity = reference @ _neurons(expert(int(member))).T
            _, order[member] = linear_sum_assignment(similarity.cpu().numpy(), maximize=True)
    return order


def _neurons(weights: ExpertWeights) -> torch.Tensor:
    """All weights of every inner neuron, [I, 3 H], or [I, 2 H] without gates."""
    import torch

    parts = (weights.gate, weights.up, weights.down.T)
    return torch.cat([part for part in parts if part is not None], dim=1)
