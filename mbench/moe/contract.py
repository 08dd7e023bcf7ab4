"""What statistics are given are copies, and what they return must be what they promised."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from mbench.core.errors import PluginError
from mbench.core.interfaces import Statistic
from mbench.core.layer_data import LayerBatch, LayerWeights
from mbench.core.plugin_code import plugin_code


def measured(statistic: Statistic, batch: LayerBatch) -> Mapping[str, torch.Tensor]:
    """Measure on copies: a change of the model's own tensors would go on into its output.

    Raises `PluginError` for what it raises, changes or returns against its contract.
    """
    fields = ("hidden", "top_k_index", "top_k_weight", "output_norm", "token", "ids")
    copies: dict[str, Any] = {name: getattr(batch, name).clone() for name in fields}
    versions = [tensor._version for tensor in copies.values()]
    with plugin_code(f"statistic {statistic.name!r}"):
        arrays = statistic.measure(replace(batch, **copies))
    if [tensor._version for tensor in copies.values()] != versions:
        raise PluginError(f"statistic {statistic.name!r} changed a tensor that it only may read")
    return _checked(statistic, arrays)


def inspected(statistic: Statistic, weights: LayerWeights) -> Mapping[str, torch.Tensor]:
    """Show a statistic a layer's weights; raises `PluginError` as `measured` does."""
    copy = replace(weights, router=weights.router.clone())
    version = copy.router._version
    with plugin_code(f"statistic {statistic.name!r}"):
        arrays = statistic.inspect(copy)
    if copy.router._version != version:
        raise PluginError(f"statistic {statistic.name!r} changed a tensor that it only may read")
    return _checked(statistic, arrays)


def _checked(statistic: Statistic, arrays: Any) -> Mapping[str, torch.Tensor]:
    """What a statistic returned, if it is tensors by name; else raises `PluginError`."""
    if not isinstance(arrays, Mapping):
        raise PluginError(
            f"statistic {statistic.name!r} must return tensors by name, got {type(arrays)}"
        )
    for name, values in arrays.items():
        if not isinstance(name, str) or name.startswith("__"):
            raise PluginError(f"statistic {statistic.name!r}: {name!r} is no name for an array")
        if isinstance(values, torch.Tensor) and (values.is_meta or values.layout != torch.strided):
            raise PluginError(
                f"statistic {statistic.name!r}: {name!r} must be a dense tensor with values"
            )
        if not isinstance(values, torch.Tensor):
            kind = f"{type(values).__module__}.{type(values).__qualname__}"
            raise PluginError(
                f"statistic {statistic.name!r}: {name!r} must be a torch.Tensor, not a {kind}"
            )
    return arrays


def add_sums(
    statistic: Statistic,
    num_experts: int,
    arrays: Mapping[str, torch.Tensor],
    totals: dict[str, torch.Tensor],
) -> None:
    """Add arrays [N, ...] to float64 `totals` by name; raises `PluginError` for other shapes."""
    for name, values in arrays.items():
        if values.dim() == 0 or values.shape[0] != num_experts:
            raise PluginError(
                f"statistic {statistic.name!r}: {name!r} must have {num_experts} experts in "
                f"its first dimension, not shape {tuple(values.shape)}"
            )
        if name not in totals:
            totals[name] = values.to(torch.float64, copy=True)
        elif totals[name].shape != values.shape:
            raise PluginError(
                f"statistic {statistic.name!r}: {name!r} has shape {tuple(values.shape)} after "
                f"{tuple(totals[name].shape)}: it must not vary"
            )
        else:
            totals[name] += values.to(totals[name].device)


def add_samples(
    statistic: Statistic,
    batch: LayerBatch,
    arrays: Mapping[str, torch.Tensor],
    pieces: dict[str, list[np.ndarray]],
) -> None:
    """Append arrays [t, ...] to `pieces` by name; raises `PluginError` if they are none."""
    for name, values in arrays.items():
        if values.is_floating_point() and not torch.isfinite(values).all():
            raise PluginError(
                f"statistic {statistic.name!r}: {name!r} of layer {batch.layer} is not finite"
            )
        # numpy has no bfloat16.
        values = values.float() if values.dtype == torch.bfloat16 else values
        if values.dim() == 0:
            raise PluginError(f"statistic {statistic.name!r}: {name!r} has no dimension of tokens")
        parts = pieces.setdefault(name, [])
        if parts and parts[0].shape[1:] != tuple(values.shape[1:]):
            raise PluginError(
                f"statistic {statistic.name!r}: {name!r} has shape {tuple(values.shape)} after "
                f"{parts[0].shape}: only the first dimension may vary"
            )
        parts.append(values.cpu().numpy().copy())
