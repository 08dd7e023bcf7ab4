"""A router's state (tensors, expert counts, k): read, sliced, installed and tried out."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.func import functional_call

from mbench.core.errors import UnsupportedModel, one_line
from mbench.moe.adapter import EXPERT_COUNTS, MoELayer

TRIAL_TOKENS = 8
"""Random tokens on which a sliced router is tried."""


class RouterState:
    """Everything that a router's output depends on, to be swapped as a whole."""

    def __init__(self, settings: list[tuple[nn.Module, str, Any]]) -> None:
        self._settings = settings

    @classmethod
    def current(cls, layer: MoELayer) -> RouterState:
        """Return the present state of the router of `layer`, which must not be sliced."""
        return cls([(owner, name, getattr(owner, name)) for owner, name in _variables(layer)])

    def sliced(self, layer: MoELayer, kept: np.ndarray) -> RouterState:
        """Return the state of a router that has only the experts `kept`."""
        rows = {(t.owner, t.attribute): t for t in layer.router_tensors}
        settings = []
        for owner, name, value in self._settings:
            if (owner, name) in rows:
                index = torch.from_numpy(kept).to(value.device)
                new = value.detach().index_select(rows[owner, name].dim, index)
                if isinstance(value, nn.Parameter):
                    new = nn.Parameter(new, requires_grad=value.requires_grad)
            elif name in (*EXPERT_COUNTS, "out_features"):
                new = len(kept)
            else:
                new = _with_top_k(layer, value, layer.top_k_with(len(kept)))
            settings.append((owner, name, new))
        return RouterState(settings)

    def choosing(self, layer: MoELayer, top_k: int) -> RouterState:
        """Return this state with another number of experts per token."""
        *rest, (owner, name, value) = self._settings
        return RouterState([*rest, (owner, name, _with_top_k(layer, value, top_k))])

    def with_random_biases(self, layer: MoELayer, magnitude: float) -> RouterState | None:
        """Return this state in float32 with random biases per expert; None if it has no biases."""
        generator = torch.Generator().manual_seed(0)
        settings, replaced = [], False
        for owner, name, value in self._settings:
            if isinstance(value, torch.Tensor):
                new = value.detach().float()
                if value.numel() == layer.num_experts:
                    new = torch.rand(value.shape, generator=generator).to(new) * magnitude
                    replaced = True
                value = nn.Parameter(new, False) if isinstance(value, nn.Parameter) else new
            settings.append((owner, name, value))
        return RouterState(settings) if replaced else None

    def install(self) -> None:
        """Make this the router's state."""
        for owner, name, value in self._settings:
            # Bypasses `Module.__setattr__`, which registers parameters and buffers.
            stores = [store for store in (owner._parameters, owner._buffers) if name in store]
            if stores:
                stores[0][name] = value
            else:
                setattr(owner, name, value)

    def tensor_at(self, position: int) -> torch.Tensor:
        """Return this state's value of `layer.router_tensors[position]`."""
        tensor: torch.Tensor = self._settings[position][2]
        return tensor


def _variables(layer: MoELayer) -> list[tuple[nn.Module, str]]:
    """What differs between router states: tensors first, k last."""
    counts = [
        (module, name)
        for module in layer.router.modules()
        for name in (*EXPERT_COUNTS, "out_features")
        if getattr(module, name, None) == layer.num_experts
    ]
    tensors = [(tensor.owner, tensor.attribute) for tensor in layer.router_tensors]
    return [*tensors, *counts, (layer.router, "config" if layer.top_k_field else "top_k")]


def _with_top_k(layer: MoELayer, value: Any, top_k: int) -> Any:
    if layer.top_k_field is None:
        return top_k
    # Other modules read the same config, so the router gets a copy.
    config = copy.copy(value)
    setattr(config, layer.top_k_field, top_k)
    return config


def fewest_experts(layer: MoELayer) -> int:
    """The least K, equally many in each group, that the layer's router can choose from."""
    grouped = np.arange(layer.num_experts).reshape(layer.groups, -1)
    for per_group in range(1, grouped.shape[1]):
        try:
            refuse_unroutable(layer, grouped[:, :per_group].flatten())
        except UnsupportedModel:
            continue
        return per_group * layer.groups
    return layer.num_experts


def refuse_unroutable(layer: MoELayer, kept: np.ndarray) -> None:
    """Raise `UnsupportedModel` if the router fails when it has only the experts `kept`.

    It is called once, with random weights and tokens, so that layers may be on the meta device.
    Some routers need more than one expert, e.g. because they score a group by its two best experts
    or always choose two.
    """
    hidden = trial_input(layer)
    if hidden is None:
        return
    count = f"{len(kept)} of {layer.num_experts} experts"
    name = f"{type(layer.router).__name__} cannot choose among {count}"
    full = RouterState.current(layer)
    full.sliced(layer, kept).install()
    try:
        output = try_out(layer, hidden)
    except (RuntimeError, IndexError) as error:
        raise UnsupportedModel(f"{layer.path}: {name} ({one_line(error)})") from error
    finally:
        full.install()
    top_k = layer.top_k_with(len(kept))
    for tensor in output:
        if tensor.isnan().any():
            raise UnsupportedModel(f"{layer.path}: {name}: its gates are NaN")
        if not tensor.is_floating_point() and tensor.shape[-1] != top_k:
            raise UnsupportedModel(
                f"{layer.path}: {name}: it chooses {tensor.shape[-1]} per token instead of {top_k}"
            )


def trial_input(layer: MoELayer) -> torch.Tensor | None:
    """Random tokens, with or without a batch dimension as the router takes them; else None."""
    tensors = (t.value for t in layer.router_tensors if t.value.dim() == 2 and t.dim == 0)
    width = next(tensors).shape[1]
    tokens = torch.randn(1, TRIAL_TOKENS, width, generator=torch.Generator().manual_seed(0))
    for hidden in (tokens, tokens[0]):
        try:
            try_out(layer, hidden)
        except Exception:
            # A router may raise anything for a shape that it does not take.
            continue
        return hidden
    return None


@torch.no_grad()
def try_out(layer: MoELayer, hidden: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Run the router as it is now, but with random weights in float32."""
    generator = torch.Generator().manual_seed(0)
    device = next(layer.router.parameters()).device
    device = torch.device("cpu") if device.type == "meta" else device

    def random_like(tensor: torch.Tensor) -> torch.Tensor:
        if not tensor.is_floating_point():
            return torch.zeros(tensor.shape, dtype=tensor.dtype, device=device)
        return torch.randn(tensor.shape, generator=generator).to(device)

    named = (*layer.router.named_parameters(), *layer.router.named_buffers())
    weights = {name: random_like(tensor) for name, tensor in named}
    # Some blocks own the bias and pass it to the router by its name.
    arguments = inspect.signature(type(layer.router).forward).parameters
    of_block = {t.attribute: t for t in layer.router_tensors if t.owner is layer.block}
    passed = {name: random_like(of_block[name].value) for name in arguments if name in of_block}
    output = functional_call(layer.router, weights, (hidden.to(device),), passed)
    outputs = output if isinstance(output, tuple) else (output,)
    return tuple(tensor for tensor in outputs if isinstance(tensor, torch.Tensor))
