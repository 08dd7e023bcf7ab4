"""Inner neurons that correspond are found whatever their order."""

from __future__ import annotations

import itertools

import numpy as np
import torch

from mbench.core.layer_data import ExpertWeights
from mbench.moe.align import matched


def random_expert(rng: np.random.Generator, inner: int, gated: bool = True) -> ExpertWeights:
    def tensor(*shape: int) -> torch.Tensor:
        return torch.from_numpy(rng.standard_normal(shape)).float()

    return ExpertWeights(tensor(inner, 5) if gated else None, tensor(inner, 5), tensor(5, inner))


def reordered(expert: ExpertWeights, order: np.ndarray) -> ExpertWeights:
    gate = None if expert.gate is None else expert.gate[order]
    return ExpertWeights(gate, expert.up[order], expert.down[:, order])


def test_a_copy_with_other_order_is_brought_back_exactly() -> None:
    rng = np.random.default_rng(0)
    for gated in (True, False):
        original = random_expert(rng, 12, gated)
        copies = [reordered(original, rng.permutation(12)) for _ in range(3)]
        experts = [copies[0], original, copies[1], copies[2]]
        order = matched(experts.__getitem__, np.array([1, 1, 1, -1]))
        for number in (0, 2):
            back = reordered(experts[number], order[number])
            assert torch.equal(back.up, original.up)
            assert torch.equal(back.down, original.down)
        assert (order[[1, 3]] == np.arange(12)).all()


def test_the_order_has_the_greatest_similarity_of_all() -> None:
    rng = np.random.default_rng(1)
    experts = [random_expert(rng, 5) for _ in range(2)]

    def stacked(expert: ExpertWeights) -> np.ndarray:
        assert expert.gate is not None
        tensors = expert.gate, expert.up, expert.down.T
        return np.concatenate([tensor.double().numpy() for tensor in tensors], axis=1)

    def likeness(order: tuple[int, ...]) -> float:
        other = reordered(experts[1], np.array(order))
        return float((stacked(experts[0]) * stacked(other)).sum())

    best = max(itertools.permutations(range(5)), key=likeness)
    order = matched(experts.__getitem__, np.array([0, 0]))
    assert order[1].tolist() == list(best)
