"""Shapley values of experts by the loss of masked models, from sampled orders of dropping them.

    value_e = mean over sampled orders of (loss after e is dropped - loss before) / block

An order starts at the full model and drops `block` experts of one layer at a time, which share
what their going costs; all layers lose equally many until K are left in each. Along one order the
values add up to the loss of its last mask minus that of the full model. The K most valuable experts
of each layer stay: of layers with fewer than K, orders that end there say nothing.

Sources: Shapley values as a criterion for experts, Monte Carlo orders, and ending them early,
because small sets of experts say little, are from Shapley-MoE (openreview.net/forum?id=7kQjbCQwtT),
of which only the abstract was read; its sampling by router probabilities is left out. Assumed here:
where orders end, blocks, and that layers take turns in a random order, so that every step meets
others that are as far. Orders of a layer are one random cycle, entered where the last one ended:
so each expert is dropped as often as any other, to within one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import Field

import mbench

from .uneven_layers import best_by_count, in_groups


class SampledShapleyParams(mbench.SearchParameters):
    """How many orders, and how coarse they are."""

    orders: int = Field(default=8, ge=1)
    """At most: the tokens may end them sooner."""
    block: int = Field(default=4, ge=1)
    """Experts of a layer that are dropped together (of each group, where a router has groups)."""


@dataclass(frozen=True)
class Step:
    """Some experts of one layer that are dropped together."""

    layer: int
    experts: np.ndarray


class SampledShapley(mbench.MaskSearch):
    """The K most valuable experts per layer, by what dropping them costs."""

    name = "sampled-shapley"
    stochastic = True
    Params = SampledShapleyParams
    params: SampledShapleyParams

    def search(
        self,
        selection: mbench.Selection,
        scores: Mapping[str, mbench.Scores],
        budget: mbench.Budget,
        candidate: mbench.ExpertMask | None,
        probe: mbench.Probe,
        rng: np.random.Generator,
    ) -> mbench.ExpertMask:
        """Return the mask; raises `SearchLimit` if the tokens are not enough for one order."""
        shape = (budget.num_layers, budget.num_experts)
        total, dropped = np.zeros(shape), np.zeros(shape, dtype=int)
        cycles = Cycles(budget)
        done = 0
        while done < self.params.orders:
            steps = cycles.order(self.params.block, rng)
            masks = masks_along(steps, shape)
            # The full model has been asked for by the first order.
            if not steps or (done and len(steps) > probe.masks_left):
                break
            losses = probe.losses(masks).mean(axis=1)
            for step, cost in zip(steps, np.diff(losses), strict=True):
                total[step.layer, step.experts] += cost / len(step.experts)
                dropped[step.layer, step.experts] += 1
            done += 1
        values = estimated(total, dropped)
        counts = np.full(budget.num_layers, budget.kept)
        notes = [f"orders sampled: {done}"]
        if missed := int((dropped == 0).sum()):
            notes.append(f"{missed} experts were never dropped: they count as their layer's mean")
        return mbench.ExpertMask(best_by_count(values, counts, budget.groups), tuple(notes))


class Cycles:
    """A random cycle of every layer's experts; each order goes on where the last one ended.

    Where one ends at the cycle's end, another cycle is drawn.
    """

    def __init__(self, budget: mbench.Budget) -> None:
        """Nothing is drawn yet."""
        every = np.tile(np.arange(budget.num_experts), (budget.num_layers, 1))
        self._groups = in_groups(every, budget.groups)
        self._length = (budget.num_experts - budget.kept) // budget.groups
        self._start = 0

    def order(self, block: int, rng: np.random.Generator) -> list[Step]:
        """The steps of the next order; layers take turns, in another order at every turn."""
        if self._start == 0:
            # [layers, places, groups]: a place is one expert of each group.
            self._places = np.swapaxes(rng.permuted(self._groups, axis=2), 1, 2)
        layers, places, _ = self._places.shape
        steps = []
        for at in range(0, self._length, block):
            reached = np.arange(at, min(at + block, self._length))
            for layer in rng.permutation(layers).tolist():
                experts = self._places[layer, (self._start + reached) % places].reshape(-1)
                steps.append(Step(layer, experts))
        self._start = (self._start + self._length) % places
        return steps


def masks_along(steps: Sequence[Step], shape: tuple[int, int]) -> list[mbench.ExpertMask]:
    """The full model and the mask after each step."""
    keep = np.ones(shape, dtype=bool)
    masks = [mbench.ExpertMask(keep.copy())]
    for step in steps:
        keep[step.layer, step.experts] = False
        masks.append(mbench.ExpertMask(keep.copy()))
    return masks


def estimated(total: np.ndarray, dropped: np.ndarray) -> np.ndarray:
    """Means over the orders that dropped an expert, [layers, N]; else the mean of its layer."""
    means = total / np.maximum(dropped, 1)
    known = np.maximum((dropped > 0).sum(axis=1, keepdims=True), 1)
    values: np.ndarray = np.where(dropped > 0, means, means.sum(axis=1, keepdims=True) / known)
    return values


@mbench.hookimpl
def mbench_components() -> list[type[mbench.Component]]:
    """The search above."""
    return [SampledShapley]


@mbench.hookimpl
def mbench_methods() -> list[mbench.Method]:
    """On all calibration corpora."""
    return [
        mbench.Method(
            "sampled-shapley",
            selector="all",
            builder="sampled-shapley",
            description="experts by what dropping them costs, in sampled orders",
        )
    ]
