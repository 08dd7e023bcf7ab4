"""What stands in for dropped experts, put into a model: merged weights, other targets, constants.

Merged weights are computed in float32 (float64 for a float64 model) and written in the place of a
kept expert's own, of which only the rows that change are kept aside, in the CPU's memory.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from mbench.core.errors import UnsupportedModel
from mbench.core.stand_ins import Merged, StandIn
from mbench.moe.adapter import MoELayer
from mbench.moe.align import matched
from mbench.moe.neurons import InnerNeurons
from mbench.moe.quantised.stored_experts import StoredExperts
from mbench.moe.weights import layer_weights


@contextlib.contextmanager
def merged_weights(layers: Sequence[MoELayer], stand_in: StandIn | None) -> Iterator[None]:
    """Let kept experts have merged weights; on exit every tensor is, bit for bit, what it was.

    Raises `UnsupportedModel` where weights are offloaded, no floating-point numbers, or of a form
    in which inner neurons are not understood; or where a sum is beyond the weights' dtype.
    """
    changed: list[tuple[torch.Tensor, torch.Tensor]] = []
    try:
        if isinstance(stand_in, Merged):
            for number, layer in enumerate(layers):
                if isinstance(layer.experts, StoredExperts):
                    raise UnsupportedModel(
                        f"{layer.path} is kept as stored in FP8, so experts cannot be merged in"
                        " memory; leave `experts: stored` out"
                    )
                for attribute, expert, merged in merged_rows(layer, stand_in, number):
                    row = getattr(layer.experts, attribute).detach()[expert]
                    changed.append((row, row.to("cpu", copy=True)))
                    row.copy_(merged)
        yield
    finally:
        for row, before in changed:
            row.copy_(before)


def merged_rows(
    layer: MoELayer, stand_in: Merged, number: int
) -> Iterator[tuple[str, int, torch.Tensor]]:
    """Compute what changes in the layer of this number: (attribute, expert, its new tensor)."""
    groups = list(changed_groups(stand_in, number))
    if not groups:
        return
    tensors = {name: getattr(layer.experts, name).detach() for name in layer.expert_tensors}
    for name, tensor in tensors.items():
        if tensor.is_meta:
            raise UnsupportedModel(
                f"{layer.path}.{name} is offloaded, so experts cannot be merged; load the model"
                " onto devices that have room for it"
            )
        if not tensor.is_floating_point():
            raise UnsupportedModel(f"{layer.path}.{name} is {tensor.dtype}, which cannot be merged")
    inner, orders = _orders(layer, stand_in, number)
    for taker, members in groups:
        for name, tensor in tensors.items():
            # One after another: a group may be all experts of a layer.
            rows = (
                tensor[member] if inner is None else inner.ordered(name, tensor[member], order)
                for member, order in zip(members, orders[members], strict=True)
            )
            what = f"{layer.path}.{name} of expert {taker}"
            yield name, taker, weighted_sum(what, rows, stand_in.weights[number, members])


def _orders(
    layer: MoELayer, stand_in: Merged, number: int
) -> tuple[InnerNeurons | None, np.ndarray]:
    """Where a layer's inner neurons are and in which order to take them; None: as they are."""
    if stand_in.neurons is None:
        return None, np.zeros((layer.num_experts, 0), dtype=np.int64)
    inner = InnerNeurons.of(layer)
    if isinstance(stand_in.neurons, str):
        return inner, matched(layer_weights(layer).expert, stand_in.into[number])
    return inner, stand_in.neurons[number]


def changed_groups(stand_in: Merged, number: int) -> Iterator[tuple[int, list[int]]]:
    """The kept experts of a layer that change, each with the experts that it is the sum of."""
    into, weights = stand_in.into[number], stand_in.weights[number]
    for taker in np.unique(into[into >= 0]).tolist():
        members = np.flatnonzero(into == taker).tolist()
        order = stand_in.neurons
        same = not isinstance(order, np.ndarray) or (np.diff(order[number, taker]) == 1).all()
        if members != [taker] or weights[taker] != 1 or not same:
            yield taker, members


def weighted_sum(what: str, rows: Iterable[torch.Tensor], weights: np.ndarray) -> torch.Tensor:
    """Add up tensors of one shape and dtype, which the sum has too; raises if it is not finite."""
    total: torch.Tensor | None = None
    for row, weight in zip(rows, weights.tolist(), strict=True):
        if total is None:
            dtype = row.dtype
            total = torch.zeros_like(row, dtype=torch.promote_types(dtype, torch.float32))
        total.add_(row, alpha=weight)
    assert total is not None
    merged = total.to(dtype)
    if not torch.isfinite(merged).all():
        raise UnsupportedModel(f"{what}: its merged weights are not finite in {dtype}")
    return merged


class Substitution:
    """Hooks of one layer's experts, which send tokens to what stands in for dropped experts.

    The router chooses among all N experts; where two of a token's choices go to the same expert,
    that expert is weighted by the sum of their gates.
    """

    def __init__(self, targets: np.ndarray, outputs: np.ndarray | None) -> None:
        """Prepare the hooks.

        Args:
            targets: int64 [N], the expert that computes in each one's place; -1: a constant.
            outputs: float32 [N, H], the constants; None where there are none.
        """
        self._targets = torch.from_numpy(targets)
        self._outputs = None if outputs is None else torch.from_numpy(np.ascontiguousarray(outputs))
        self._some_target = int(targets.max())
        self._constant: torch.Tensor | None = None

    def install(self, experts: nn.Module) -> tuple[RemovableHandle, ...]:
        """Register the hooks."""
        before = experts.register_forward_pre_hook(self._before, with_kwargs=True)
        if self._outputs is None:
            return (before,)
        return before, experts.register_forward_hook(self._after)

    def _before(
        self, experts: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if len(args) != 3 or kwargs:
            raise UnsupportedModel(
                f"{type(experts).__name__} is called with {len(args)} arguments and keywords "
                f"{sorted(kwargs)} instead of (hidden, top_k_index, top_k_weights)"
            )
        hidden, index, weights = args
        index = index.long()
        self._targets = self._targets.to(index.device)
        targets = self._targets[index]
        if self._outputs is not None:
            self._outputs = self._outputs.to(index.device)
            constant = targets < 0
            gates = weights.float() * constant
            shape = len(index), len(self._outputs)
            shares = torch.zeros(shape, device=index.device).scatter_add_(1, index, gates)
            self._constant = shares @ self._outputs
            # Every choice must name an expert: one of the token's own, so that no other is added.
            own = targets.amax(dim=1, keepdim=True)
            own = torch.where(own < 0, self._some_target, own)
            targets = torch.where(constant, own, targets)
            weights = weights.masked_fill(constant, 0)
        return (hidden, targets, weights), kwargs

    def _after(self, experts: nn.Module, args: tuple[Any, ...], output: torch.Tensor) -> Any:
        constant, self._constant = self._constant, None
        if constant is None:
            raise UnsupportedModel(f"{type(experts).__name__} was not called as a module")
        return (output.float() + constant.to(output.device)).to(output.dtype)


def substitution(
    layer: MoELayer, stand_in: StandIn, number: int, kept: np.ndarray, *, renumbered: bool
) -> Substitution:
    """Return the hooks of the layer of this number, whose router keeps all its rows.

    Args:
        layer: with experts of which `kept` (int64 [K]) are kept.
        stand_in: constants, or merged experts with a mapped router.
        number: of the layer in the stand-in.
        kept: the experts that are kept, ascending.
        renumbered: whether the experts' tensors have rows for the kept ones only.

    Raises:
        UnsupportedModel: constants of another width than the experts' output.
    """
    places = np.full(layer.num_experts, -1)
    places[kept] = np.arange(len(kept)) if renumbered else kept
    if isinstance(stand_in, Merged):
        return Substitution(places[stand_in.into[number]], None)
    outputs = stand_in.outputs[number]
    width = output_width(layer)
    if outputs.shape[1] != width:
        raise UnsupportedModel(
            f"{layer.path}: constants have {outputs.shape[1]} numbers, but an expert's output"
            f" {width}"
        )
    return Substitution(places, outputs)


def output_width(layer: MoELayer) -> int:
    """Numbers in an expert's output, which some families then map to the hidden size."""
    down = layer.experts.down_proj
    return int(down.shape[2 if layer.experts.is_transposed else 1])
