"""A physically smaller model: the experts that a mask drops are gone, and so are their router rows.

`mbench.moe.mask` computes what such a model computes without making one; this makes one.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from mbench.core.errors import UnsupportedModel
from mbench.core.interfaces import ExpertMask
from mbench.moe.adapter import EXPERT_COUNTS, TOP_K_FIELDS, MoELayer
from mbench.moe.mask import checked


def prune(
    model: PreTrainedModel, layers: Sequence[MoELayer], mask: ExpertMask | np.ndarray
) -> PreTrainedModel:
    """Return a model that has only the experts which `mask` (bool [L, N]) keeps.

    All tensors but the sliced ones are shared with `model`, which stays as it is. Where fewer
    experts are kept than a token gets, it gets all that its router can choose. Raises
    `UnsupportedModel` where the family's configuration cannot express the smaller model, or if
    weights are offloaded or on several devices.
    """
    keep = checked(layers, mask.keep if isinstance(mask, ExpertMask) else mask)
    kept = experts_kept(keep)
    full = model.state_dict()
    away = next((name for name, tensor in full.items() if tensor.is_meta), None)
    if away is not None:
        raise UnsupportedModel(f"{away} is not in memory, so the model cannot be pruned there")
    devices = sorted({str(device) for device in getattr(model, "hf_device_map", {}).values()})
    if len(devices) > 1:
        raise UnsupportedModel(
            f"the model is spread over devices ({', '.join(devices)}), and a pruned copy of it "
            "would not know how: it can be pruned on one device only"
        )
    config = copy.deepcopy(model.config)
    text_config = config.get_text_config()
    for field, value in pruned_fields(text_config.to_dict(), layers[0], kept).items():
        setattr(text_config, field, value)
    with torch.device("meta"):
        smaller = type(model)(config)
    refuse_misfit(model, layers, smaller, kept)
    dims = expert_dims(model, layers)

    def sliced(name: str, tensor: torch.Tensor) -> torch.Tensor:
        if name not in dims:
            return tensor
        layer, dim = dims[name]
        index = torch.from_numpy(np.flatnonzero(keep[layer])).to(tensor.device)
        return tensor.detach().index_select(dim, index)

    state = {name: sliced(name, tensor) for name, tensor in full.items()}
    smaller.load_state_dict(state, assign=True)
    # What a module computes when it is built, e.g. rotary frequencies, is in no state dict.
    originals = dict(model.named_modules())
    for path, module in smaller.named_modules():
        for holder, source in (
            (module._buffers, originals[path]._buffers),
            (vars(module), vars(originals[path])),
        ):
            for name, value in holder.items():
                if isinstance(value, torch.Tensor) and value.is_meta:
                    holder[name] = sliced(f"{path}.{name}" if path else name, source[name])
    smaller.tie_weights()
    smaller.generation_config = model.generation_config
    return smaller.eval().requires_grad_(False)


def experts_kept(keep: np.ndarray) -> int:
    """K of a mask bool [L, N]; raises `UnsupportedModel` if it differs between layers.

    No selection of mbench does that, and a configuration has one number of experts for all layers.
    """
    counts = sorted(set(keep.sum(axis=1).tolist()))
    if len(counts) > 1:
        raise UnsupportedModel(
            f"the mask keeps between {counts[0]} and {counts[-1]} experts by layer, and a model's "
            "configuration has one number for all"
        )
    return counts[0]


def pruned_fields(config: Mapping[str, Any], layer: MoELayer, kept: int) -> dict[str, int]:
    """The fields of a configuration that differ in the pruned model, with their new values.

    Whether these are all of them is for `refuse_misfit` to tell.
    """
    fields = {name: kept for name in EXPERT_COUNTS if config.get(name) == layer.num_experts}
    top_k = layer.top_k_with(kept)
    if top_k != layer.top_k:
        fields |= {name: top_k for name in TOP_K_FIELDS if config.get(name) == layer.top_k}
    return fields


def expert_dims(model: nn.Module, layers: Sequence[MoELayer]) -> dict[str, tuple[int, int]]:
    """Name in the state dict -> (layer number, dimension that counts experts)."""
    names = {module: f"{name}." if name else "" for name, module in model.named_modules()}
    found = {}
    for number, layer in enumerate(layers):
        for attribute in layer.expert_tensors:
            found[f"{names[layer.experts]}{attribute}"] = number, 0
        for tensor in layer.router_tensors:
            found[f"{names[tensor.owner]}{tensor.attribute}"] = number, tensor.dim
    return found


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
                f"shape {shape}, so the pruned model cannot be expressed"
            )
    paths = {module: path for path, module in model.named_modules()}
    for layer in layers:
        router = smaller.get_submodule(paths[layer.router])
        owner, field = (
            (router.config, layer.top_k_field) if layer.top_k_field else (router, "top_k")
        )
        if getattr(owner, field) != layer.top_k_with(kept):
            raise UnsupportedModel(
                f"{name}: its configuration cannot say that a token gets "
                f"{layer.top_k_with(kept)} of {kept} experts"
            )
