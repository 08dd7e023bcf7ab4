"""What statistics are given are copies, and what they return must be what they promised."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from mbench.core.errors import PluginError
from mbench.core.interfaces import Statistic
from mbench.core.layer_data import LayerBatch, LayerWeights
from mbench.core.plugin_code import plugin_code

_READ_ONLY = ("hidden", "top_k_index", "top_k_weight", "output_norm", "token", "ids", "sampled")


def copied(batch: LayerBatch) -> LayerBatch:
    """Copies for statistics: a change of the model's own tensors would go on into its output."""
    copies: dict[str, Any] = {name: getattr(batch, name).clone() for name in _READ_ONLY}
    return replace(batch, **copies)


def measured(statistic: Statistic, batch: LayerBatch) -> Mapping[str, torch.Tensor]:
    """Measure on copies.

    Raises `PluginError` for what it raises, changes or returns against its contract.
    """
    tensors = [getattr(batch, name) for name in _READ_ONLY]
    versions = [tensor._version for tensor in tensors]
    with plugin_code(f"statistic {statistic.name!r}"):
        arrays = statistic.measure(batch)
    if [tensor._version for tensor in tensors] != versions:
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


def checked_samples(
    statistic: Statistic, arrays: Mapping[str, torch.Tensor], tokens: int | None
) -> dict[str, torch.Tensor]:
    """Arrays [t, ...] as they can be stored; `tokens`: t, where it is known before.

    Raises `PluginError` for others.
    """
    for name, values in arrays.items():
        if values.dim() == 0:
            raise PluginError(f"statistic {statistic.name!r}: {name!r} has no dimension of tokens")
        if tokens not in (None, len(values)):
            raise PluginError(
                f"statistic {statistic.name!r}: {name!r} has {len(values)} tokens, where"
                f" `sampled_tokens` names {tokens}"
            )
    # numpy has no bfloat16.
    return {
        name: values.float() if values.dtype == torch.bfloat16 else values
        for name, values in arrays.items()
    }
