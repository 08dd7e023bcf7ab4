"""Where the inner neurons of experts lie in their tensors, so that these can be reordered.

An expert computes the same whatever the order of its inner neurons, so that two experts can be
matched neuron by neuron before they are averaged. Families differ in which dimension counts them
and in whether gates and values stand in two halves or alternate; a trial tells which.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from mbench.core.errors import UnsupportedModel
from mbench.moe.adapter import MoELayer
from mbench.moe.experts import apply_expert

if TYPE_CHECKING:
    from mbench.moe.adapter import ExpertsModule

Pairs = Literal["halves", "alternating"]

WIDTH = 4
"""Hidden size of the trial."""


@dataclass(frozen=True)
class InnerNeurons:
    """The inner neurons of a layer's experts."""

    path: str
    count: int
    """I."""
    transposed: bool
    pairs: Pairs
    """How `gate_up_proj` orders the gates and values of neurons."""

    @classmethod
    def of(cls, layer: MoELayer) -> InnerNeurons:
        """Find out for a layer, which may be on the meta device.

        Raises `UnsupportedModel` for experts in which neurons cannot be reordered.
        """
        experts = layer.experts
        known = {"gate_up_proj" if experts.has_gate else "up_proj", "down_proj"}
        known |= {f"{name}_bias" for name in known}
        if strange := sorted(set(layer.expert_tensors) - known):
            raise UnsupportedModel(
                f"{layer.path}: the inner neurons of {strange[0]} are not known, so experts cannot"
                " be aligned before they are merged"
            )
        count = int(experts.down_proj.shape[1 if experts.is_transposed else 2])
        pairs: tuple[Pairs, ...] = ("halves", "alternating")
        found = [
            cls(layer.path, count, bool(experts.is_transposed), each)
            for each in (pairs if experts.has_gate else pairs[:1])
        ]
        found = [each for each in found if each._changes_nothing(experts)]
        if not found:
            raise UnsupportedModel(
                f"{layer.path}: {type(experts).__name__} does not compute the same with its inner"
                " neurons in another order, so experts cannot be aligned before they are merged"
            )
        return found[0]

    def ordered(self, name: str, row: torch.Tensor, order: np.ndarray) -> torch.Tensor:
        """Return one expert's tensor `name` with its inner neurons in `order` (int64 [I]).

        Raises `UnsupportedModel` for an order of another number of neurons.
        """
        if len(order) != self.count:
            raise UnsupportedModel(
                f"{self.path}: `neurons` orders {len(order)}, but an expert has {self.count}"
            )
        dim = self.dim(name)
        if dim is None:
            return row
        return row.index_select(dim, self._places(name, torch.from_numpy(order)).to(row.device))

    def dim(self, name: str) -> int | None:
        """The dimension of one expert's tensor that counts its inner neurons; None: none does."""
        if name == "down_proj_bias":
            return None
        if name.endswith("_bias"):
            return 0
        return int(self.transposed != (name == "down_proj"))

    def _places(self, name: str, order: torch.Tensor) -> torch.Tensor:
        if not name.startswith("gate_up_proj"):
            return order
        if self.pairs == "halves":
            return torch.cat([order, order + self.count])
        return torch.stack([2 * order, 2 * order + 1], dim=1).flatten()

    def _changes_nothing(self, experts: ExpertsModule) -> bool:
        """Whether an expert with random weights and few hidden dimensions stays what it is."""
        generator = torch.Generator().manual_seed(0)
        hidden = torch.randn(8, WIDTH, generator=generator)
        order = np.arange(self.count)[::-1].copy()
        first = "gate_up_proj" if experts.has_gate else "up_proj"
        inner = {first: self.count * (2 if experts.has_gate else 1), "down_proj": self.count}
        tensors = {}
        for name, length in inner.items():
            shape = [WIDTH, WIDTH]
            shape[self.dim(name) or 0] = length
            tensors[name] = torch.randn(shape, generator=generator)
            bias = WIDTH if name == "down_proj" else length
            tensors[f"{name}_bias"] = torch.randn(bias, generator=generator)
        plain = {name: tensor[None] for name, tensor in tensors.items()}
        moved = {name: self.ordered(name, tensor, order)[None] for name, tensor in tensors.items()}
        before, after = (apply_expert(_with(experts, each), 0, hidden) for each in (plain, moved))
        return bool(torch.allclose(before, after, rtol=1e-3, atol=1e-3 * float(before.abs().max())))


def _with(experts: ExpertsModule, tensors: dict[str, torch.Tensor]) -> ExpertsModule:
    """The experts' own code on other tensors, without what comes after the projections."""
    other = copy.copy(experts)
    # Found before parameters of the same name, which the copy shares with the original.
    vars(other).update(tensors, has_post_expert_norm=False)
    return other
