"""Builds a physically smaller model, without the dropped experts and, as a rule, their router rows.

`mbench.moe.mask` computes the same without building it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from mbench.core.errors import UnsupportedModel
from mbench.core.interfaces import ExpertMask
from mbench.core.stand_ins import keeps_router
from mbench.moe.adapter import EXPERT_COUNTS, TOP_K_FIELDS, MoELayer, find_moe_layers
from mbench.moe.mask import checked
from mbench.moe.quantised.stored_experts import StoredExperts
from mbench.moe.replace import merged_weights, substitution
from mbench.moe.router import RouterState


def prune(
    model: PreTrainedModel, layers: Sequence[MoELayer], mask: ExpertMask | np.ndarray
) -> PreTrainedModel:
    """Return a model that has only the experts which `mask` (bool [L, N]) keeps.

    All tensors but the sliced ones are shared with `model`, which stays as it is. Where fewer
    experts are kept than a token gets, it gets all that its router can choose. Where layers keep
    different numbers of experts or a stand-in needs the full router, the modules have other sizes
    than the smaller model's configuration says. Raises `UnsupportedModel` where the family's
    configuration cannot express an evenly pruned model, or if weights are offloaded or on several
    devices.
    """
    mask = checked(layers, mask)
    if any(isinstance(layer.experts, StoredExperts) for layer in layers):
        raise UnsupportedModel(
            "a model whose experts are kept as stored in FP8 cannot be pruned in memory; leave"
            " `experts: stored` out"
        )
    full = model.state_dict()
    _refuse_scattered(model, full)
    if is_even(mask):
        smaller = _configured(model, layers, int(mask.keep[0].sum()))
    else:
        with torch.device("meta"):
            smaller = type(model)(copy.deepcopy(model.config))
        shrink(find_moe_layers(smaller), mask)
    dims = expert_dims(model, layers, router=not keeps_router(mask.stand_in))

    def sliced(name: str, tensor: torch.Tensor) -> torch.Tensor:
        if name not in dims:
            return tensor
        layer, dim = dims[name]
        index = torch.from_numpy(np.flatnonzero(mask.keep[layer])).to(tensor.device)
        return tensor.detach().index_select(dim, index)

    with merged_weights(layers, mask.stand_in):
        state = {name: sliced(name, tensor) for name, tensor in full.items()}
    smaller.load_state_dict(state, assign=True)
    _fill_meta_tensors(model, smaller, sliced)
    smaller.tie_weights()
    smaller.generation_config = model.generation_config
    smaller.eval().requires_grad_(False)
    return smaller


def is_even(mask: ExpertMask) -> bool:
    """Whether it leaves a stock model of fewer experts: as many in every layer, and their router.

    A configuration has one number of experts for all layers.
    """
    counts = mask.keep.sum(axis=1)
    return bool(counts.min() == counts.max()) and not keeps_router(mask.stand_in)


def _configured(model: PreTrainedModel, layers: Sequence[MoELayer], kept: int) -> PreTrainedModel:
    """A stock model of `kept` experts in every layer, on the meta device."""
    config = copy.deepcopy(model.config)
    text_config = config.get_text_config()
    for field, value in pruned_fields(text_config.to_dict(), layers[0], kept).items():
        setattr(text_config, field, value)
    with torch.device("meta"):
        smaller = type(model)(config)
    refuse_misfit(model, layers, smaller, kept)
    return smaller


def shrink(layers: Sequence[MoELayer], mask: ExpertMask) -> None:
    """Make the layers of a model on the meta device as small as a mask that fits them says.

    Routers that a stand-in needs stay, and what it stands in with is put in as hooks. Raises
    `UnsupportedModel` for experts that cannot be fewer than their configuration says.
    """
    stand_in = mask.stand_in
    for number, (layer, row) in enumerate(zip(layers, mask.keep, strict=True)):
        kept = np.flatnonzero(row)
        if len(kept) == layer.num_experts:
            continue
        if stand_in is not None and keeps_router(stand_in):
            hooks = substitution(layer, stand_in, number, kept, renumbered=True)
            hooks.install(layer.experts)
        else:
            RouterState.current(layer).sliced(layer, kept).install()
        experts = layer.experts
        for name in layer.expert_tensors:
            value = getattr(experts, name)
            fewer = value.new_empty((len(kept), *value.shape[1:]))
            if isinstance(value, nn.Parameter):
                fewer = nn.Parameter(fewer, requires_grad=value.requires_grad)
            setattr(experts, name, fewer)
        for name in EXPERT_COUNTS:
            if getattr(experts, name, None) == layer.num_experts:
                setattr(experts, name, len(kept))
        if experts.num_experts != len(kept):
            raise UnsupportedModel(
                f"{layer.path}: {type(experts).__name__} cannot have another number of experts"
                " than its configuration says"
            )


def _refuse_scattered(model: PreTrainedModel, state: Mapping[str, torch.Tensor]) -> None:
    offloaded = next((name for name, tensor in state.items() if tensor.is_meta), None)
    if offloaded is not None:
        raise UnsupportedModel(f"{offloaded} is not in memory, so the model cannot be pruned")
    devices = sorted({str(device) for device in getattr(model, "hf_device_map", {}).values()})
    if len(devices) > 1:
        raise UnsupportedModel(
            f"the model is spread over devices ({', '.join(devices)}): it can be pruned only on one"
        )


def _fill_meta_tensors(
    model: nn.Module,
    smaller: nn.Module,
    sliced: Callable[[str, torch.Tensor], torch.Tensor],
) -> None:
    """Copy what no state dict has: tensors that modules compute, e.g. rotary frequencies."""
    originals = dict(model.named_modules())
    for path, module in smaller.named_modules():
        places: tuple[tuple[dict[str, Any], Mapping[str, Any]], ...] = (
            (module._buffers, originals[path]._buffers),
            (vars(module), vars(originals[path])),
        )
        for attributes, original_attributes in places:
            for name, value in attributes.items():
                if isinstance(value, torch.Tensor) and value.is_meta:
                    full_name = f"{path}.{name}" if path else name
                    attributes[name] = sliced(full_name, original_attributes[name])


def pruned_fields(config: Mapping[str, Any], layer: MoELayer, kept: int) -> dict[str, int]:
    """The fields of a configuration that differ in the pruned model, with their new values.

    Whether these are all of them, `refuse_misfit` checks.
    """
    fields = {name: kept for name in EXPERT_COUNTS if config.get(name) == layer.num_experts}
    top_k = layer.top_k_with(kept)
    if top_k != layer.top_k:
        fields |= {name: top_k for name in TOP_K_FIELDS if config.get(name) == layer.top_k}
    return fields


def expert_dims(
    model: nn.Module, layers: Sequence[MoELayer], *, router: bool = True
) -> dict[str, tuple[int, int]]:
    """Name in the state dict -> (layer number, dimension that counts experts).

    Without `router`, of the experts' own tensors alone.
    """
    names = {module: f"{name}." if name else "" for name, module in model.named_modules()}
    dims = {}
    for number, layer in enumerate(layers):
        for attribute in layer.expert_tensors:
            dims[f"{names[layer.experts]}{attribute}"] = number, 0
        for tensor in layer.router_tensors if router else ():
            dims[f"{names[tensor.owner]}{tensor.attribute}"] = number, tensor.dim
    return dims


def refuse_misfit(
    model: PreTrainedModel, layers: Sequence[MoELayer], smaller: PreTrainedModel, kept: int
) -> None:
    """Raise `UnsupportedModel` unless `smaller` is `model` with `kept` experts in every layer."""
    dims = expert_dims(model, layers)
    shapes = {name: tuple(tensor.shape) for name, tensor in smaller.state_dict().items()}
    name = type(model).__name__
    for tensor_name, tensor in model.state_dict().items():
        shape = list(tensor.shape)
        if tensor_name in dims:
            shape[dims[tensor_name][1]] = kept
        if shapes.get(tensor_name) != tuple(shape):
            raise UnsupportedModel(
                f"{name}: a configuration with {kept} experts does not give {tensor_name} the "
                f"shape {shape}, so there is no such pruned model"
            )
    paths = {module: path for path, module in model.named_modules()}
    for layer in layers:
        router = smaller.get_submodule(paths[layer.router])
        owner, field = (
            (router.config, layer.top_k_field) if layer.top_k_field else (router, "top_k")
        )
        if getattr(owner, field) != layer.top_k_with(kept):
            raise UnsupportedModel(
                f"{name}: its configuration cannot express that a token gets "
                f"{layer.top_k_with(kept)} of {kept} experts"
            )
