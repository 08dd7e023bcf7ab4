"""Runs a model as if experts had been removed or replaced, without removing them.

The router's own code runs on the rows of the retained experts only, whatever it does with them
(softmax, sigmoid, correction bias, renormalisation). Its choices are mapped back to the original
experts just before these are called. That is what a physically pruned model computes. Where a mask
has stand-ins that the full router chooses among, only where its choices go is changed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakSet

import numpy as np
import torch
from torch import nn

from mbench.core.errors import UnsupportedModel
from mbench.core.interfaces import ExpertMask, RouterMode, kept_per_group
from mbench.core.stand_ins import keeps_router, refuse_malformed
from mbench.moe.adapter import MoELayer
from mbench.moe.preserved import SCALES, contradiction, renormalises
from mbench.moe.replace import Substitution, merged_weights, substitution
from mbench.moe.router import RouterState, refuse_unroutable

_masked_routers: WeakSet[nn.Module] = WeakSet()


@contextlib.contextmanager
def masked(
    layers: Sequence[MoELayer], mask: ExpertMask | np.ndarray, router: RouterMode = "sliced"
) -> Iterator[None]:
    """Let the model of `layers` use only the experts that `mask` (bool [L, N]) keeps.

    What stands in for the others is as the mask says: constants and mapped experts see the gates of
    the full router in either mode. On exit, also after an exception, the model is what it was, down
    to the identity and the bits of its tensors; until then other uses of them see merged weights.

    Raises `UnsupportedModel`, on entry or in the first forward call, for routers that cannot be
    masked in the asked mode and experts that cannot be merged; `ValueError` for a mask of the wrong
    shape, with an empty layer or a malformed stand-in; `RuntimeError` if the layers are masked
    already.
    """
    if any(layer.router in _masked_routers for layer in layers):
        raise RuntimeError("masks do not nest: leave the first one before entering another")
    for layer in layers:
        if any(tensor.value.device.type == "meta" for tensor in layer.router_tensors):
            raise UnsupportedModel(
                f"{layer.path}: its router is offloaded, so it cannot be sliced; load the model "
                "with mbench.moe.load, which keeps routers in memory"
            )
    mask = checked(layers, mask)
    with contextlib.ExitStack() as stack:
        stack.enter_context(merged_weights(layers, mask.stand_in))
        for number, (layer, row) in enumerate(zip(layers, mask.keep, strict=True)):
            kept = np.flatnonzero(row)
            replaced = len(kept) < layer.num_experts and keeps_router(mask.stand_in)
            if mask.stand_in is not None and replaced:
                hooks = substitution(layer, mask.stand_in, number, kept, renumbered=False)
                stack.enter_context(_substituted(layer, hooks))
            else:
                stack.enter_context(_masked_layer(layer, kept, router))
        yield


def checked(layers: Sequence[MoELayer], mask: ExpertMask | np.ndarray) -> ExpertMask:
    """Return a mask, given as such or as bool [L, N], that fits the layers.

    Raises what `masked` raises on entry for the mask itself, but for the stand-in's widths.
    """
    mask = mask if isinstance(mask, ExpertMask) else ExpertMask(mask)
    keep = mask.keep
    shape = (len(layers), layers[0].num_experts)
    if keep.shape != shape or keep.dtype != np.bool_:
        raise ValueError(f"a mask must be bool {shape}, not {keep.dtype} {keep.shape}")
    if not keep.any(axis=1).all():
        raise ValueError("a mask must keep at least one expert in every layer")
    if mask.stand_in is not None:
        refuse_malformed(mask.stand_in, keep)
        if keeps_router(mask.stand_in):
            return mask
    tried = set()
    for layer, row in zip(layers, keep, strict=True):
        per_group = kept_per_group(row, layer.groups)
        if per_group.min() != per_group.max():
            raise UnsupportedModel(
                f"{layer.path}: a group-limited router needs the same number of experts in "
                f"each of its {layer.groups} groups, not {per_group.tolist()}"
            )
        kept = np.flatnonzero(row)
        # Layers of one class differ only in their weights, which the trial replaces.
        kind = type(layer.router), layer.groups, len(kept)
        if kind not in tried and len(kept) < layer.num_experts:
            refuse_unroutable(layer, kept)
            tried.add(kind)
    return mask


@contextlib.contextmanager
def _substituted(layer: MoELayer, hooks: Substitution) -> Iterator[None]:
    _masked_routers.add(layer.router)
    handles = hooks.install(layer.experts)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        _masked_routers.discard(layer.router)


@contextlib.contextmanager
def _masked_layer(layer: MoELayer, kept: np.ndarray, mode: RouterMode) -> Iterator[None]:
    _masked_routers.add(layer.router)
    full = RouterState.current(layer)
    handles = []
    try:
        # A router that keeps all experts is not touched, so that not one bit can differ.
        if len(kept) < layer.num_experts:
            sliced = full.sliced(layer, kept)
            routing = _LayerRouting(layer, kept, mode, full, sliced)
            sliced.install()
            handles.append(
                layer.experts.register_forward_pre_hook(routing.before_experts, with_kwargs=True)
            )
            if mode == "preserved":
                handles.append(
                    layer.router.register_forward_hook(routing.after_router, with_kwargs=True)
                )
        yield
    finally:
        for handle in handles:
            handle.remove()
        full.install()
        _masked_routers.discard(layer.router)


class _LayerRouting:
    """The hooks of one masked layer."""

    def __init__(
        self,
        layer: MoELayer,
        kept: np.ndarray,
        mode: RouterMode,
        full: RouterState,
        sliced: RouterState,
    ) -> None:
        if mode == "preserved" and layer.groups > 1:
            raise UnsupportedModel(
                f"{layer.path}: `preserved` gates are not defined for a group-limited router"
            )
        self._layer = layer
        self._original = torch.from_numpy(kept)
        self._mode = mode
        self._full = full
        self._sliced = sliced
        self._call: RouterCall | None = None
        self._renormalises: bool | None = None

    def after_router(
        self, router: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> None:
        """Remember the call, to repeat it with all experts."""
        self._call = RouterCall(args, kwargs, output)

    def before_experts(
        self, experts: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Map the choice to the original expert numbers; under `preserved`, replace the gates."""
        if len(args) != 3 or kwargs:
            raise UnsupportedModel(
                f"{self._layer.path} is called with {len(args)} arguments and keywords "
                f"{sorted(kwargs)} instead of (hidden, top_k_index, top_k_weights)"
            )
        hidden, index, weights = args
        expected = self._layer.top_k_with(len(self._original))
        if index.shape[-1] != expected:
            raise UnsupportedModel(
                f"{self._layer.path}: the router chooses {index.shape[-1]} experts per token "
                f"instead of {expected}"
            )
        if self._original.device != index.device:
            self._original = self._original.to(index.device)
        original = self._original[index]
        if self._mode == "preserved":
            weights = self._preserve(weights, index, original)
        return (hidden, original, weights), kwargs

    def _preserve(
        self, weights: torch.Tensor, index: torch.Tensor, original: torch.Tensor
    ) -> torch.Tensor:
        """Return the full model's gates [T, k] of the chosen experts `original` [T, k]."""
        call, self._call = self._call, None
        position = call.position_of(weights) if call else None
        index_position = call.position_of(index) if call else None
        if call is None or position is None or index_position is None or not call.args:
            raise UnsupportedModel(
                f"{self._layer.path}: `preserved` gates need a router whose outputs are passed to "
                "the experts unchanged"
            )

        def gates(top_k: int, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
            full = self._full.choosing(self._layer, top_k)
            output = self._route(call, full, call.args[0] * scale)
            return output[position], output[index_position]

        if self._renormalises is None:
            self._refuse_unless_choice_is_kept(call, index_position)
            self._renormalises = renormalises(self._layer, gates)
        if self._renormalises:
            return weights
        full_gates, full_index = gates(self._layer.num_experts, 1.0)
        # The full router may list experts in any order: [T, N] by expert number.
        table = torch.zeros_like(full_gates).scatter_(1, full_index, full_gates)
        return table.gather(1, original)

    def _refuse_unless_choice_is_kept(self, call: RouterCall, index_position: int) -> None:
        """Refuse a router that ranks the retained experts differently once it is sliced.

        A bias on probabilities does that: probabilities grow when others are gone, and the bias
        does not. A model's own biases may hide it, so random ones are tried.
        """
        experts, kept, hidden = self._layer.num_experts, self._original, call.args[0].float()
        full = self._full.with_random_biases(self._layer, 1 / experts)
        if full is None:
            return
        # Choosing half of them: in the middle of a ranking most experts have nearly equal scores.
        sliced = full.sliced(self._layer, kept.cpu().numpy())
        sliced = sliced.choosing(self._layer, max(1, len(kept) // 2))
        full = full.choosing(self._layer, experts // 2)
        for scale in SCALES:
            among_all = self._route(call, full, hidden * scale)[index_position]
            among_kept = kept[self._route(call, sliced, hidden * scale)[index_position]]
            # Rounding may swap two equal experts in one token of very many.
            if contradiction(among_all, among_kept, kept, experts) > 0.01:
                raise UnsupportedModel(
                    f"{self._layer.path}: `preserved` gates are not defined for "
                    f"{type(self._layer.router).__name__}, whose choice among the retained experts "
                    "depends on the dropped ones"
                )

    def _route(self, call: RouterCall, state: RouterState, hidden: torch.Tensor) -> Any:
        """Repeat a call of the sliced router in another state, with another input."""
        installed = [tensor.value for tensor in self._layer.router_tensors]

        def in_state(value: Any) -> Any:
            """The other state's tensor where the argument is one of the router's own."""
            places = (n for n, tensor in enumerate(installed) if tensor is value)
            place = next(places, None)
            return value if place is None else state.tensor_at(place)

        args = [in_state(value) for value in call.args[1:]]
        kwargs = {name: in_state(value) for name, value in call.kwargs.items()}
        state.install()
        try:
            return self._layer.router.forward(hidden, *args, **kwargs)
        finally:
            self._sliced.install()


@dataclass(frozen=True)
class RouterCall:
    """One call of a router."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Any

    def position_of(self, tensor: torch.Tensor) -> int | None:
        """Return where in the output this very tensor is, or None."""
        outputs = self.output if isinstance(self.output, tuple) else ()
        return next((i for i, value in enumerate(outputs) if value is tensor), None)
