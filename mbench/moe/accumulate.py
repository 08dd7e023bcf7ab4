"""Adding up what statistics measure, and checking that they keep their contract."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from mbench.core.errors import PluginError, UnsupportedModel
from mbench.core.interfaces import LayerBatch, Statistic
from mbench.moe.adapter import MoELayer


class Accumulator:
    """Totals per shard of `sum` statistics, and the pieces of `concatenate` statistics."""

    def __init__(
        self, layers: Sequence[MoELayer], statistics: Sequence[Statistic], shards: int
    ) -> None:
        self._layers = [layer.path for layer in layers]
        self._statistics = list({each.identity: each for each in statistics}.values())
        self._shards = shards
        # Totals of the open shard stay on the layer's device: fetching them would make it wait.
        self._open: dict[tuple[str, int], dict[str, torch.Tensor]] = {}
        self._norms: dict[int, torch.Tensor] = {}
        self._sums: dict[str, dict[str, np.ndarray]] = defaultdict(dict)
        self._samples: dict[tuple[str, int], dict[str, list[np.ndarray]]] = {}

    def add(self, layer: int, batch: LayerBatch) -> None:
        """Let every statistic measure one layer's batch."""
        norms = batch.output_norm.sum(dtype=torch.float64)
        self._norms[layer] = self._norms.get(layer, 0) + norms
        for statistic in self._statistics:
            measured = _measured(statistic, batch)
            key = statistic.identity, layer
            if statistic.combine == "sum":
                _add_sums(statistic, batch, measured, self._open.setdefault(key, {}))
            else:
                _add_samples(statistic, batch, measured, self._samples.setdefault(key, {}))

    def close_shard(self, shard: int) -> None:
        """Move the open totals to the results of `shard`."""
        for layer, total in self._norms.items():
            if not torch.isfinite(total):
                raise UnsupportedModel(
                    f"{self._layers[layer]}: the experts' outputs are not finite; a wider dtype "
                    "may help"
                )
        by_identity = {statistic.identity: statistic for statistic in self._statistics}
        for (identity, layer), totals in self._open.items():
            for name, total in totals.items():
                values = total.cpu().numpy()
                if not np.isfinite(values).all():
                    raise PluginError(
                        f"statistic {by_identity[identity].name!r}: {name!r} of layer "
                        f"{self._layers[layer]} is not finite"
                    )
                results = self._sums[identity]
                if name not in results:
                    results[name] = np.zeros((self._shards, len(self._layers), *values.shape))
                results[name][shard, layer] = values
        self._open.clear()
        self._norms.clear()

    def sums(self) -> dict[str, dict[str, np.ndarray]]:
        """identity -> array name -> float64 [shards, L, N, ...]."""
        return dict(self._sums)

    def samples(self) -> dict[str, dict[str, list[np.ndarray]]]:
        """identity -> array name -> arrays [t, ...] of all layers."""
        joined: dict[str, dict[str, list[np.ndarray]]] = {}
        for (identity, _), pieces in sorted(self._samples.items()):
            arrays = joined.setdefault(identity, {})
            for name, parts in pieces.items():
                arrays.setdefault(name, []).append(np.concatenate(parts))
        return joined


def _measured(statistic: Statistic, batch: LayerBatch) -> Mapping[str, torch.Tensor]:
    """Measure; the tensors are the model's own, and a change would go on into its output."""
    looked_at = (batch.hidden, batch.top_k_index, batch.top_k_weight, batch.output_norm)
    before = [tensor._version for tensor in looked_at]
    measured = statistic.measure(batch)
    if [tensor._version for tensor in looked_at] != before:
        raise PluginError(f"statistic {statistic.name!r} changed a tensor that it only may read")
    return measured


def _add_sums(
    statistic: Statistic,
    batch: LayerBatch,
    measured: Mapping[str, torch.Tensor],
    totals: dict[str, torch.Tensor],
) -> None:
    _check_names(statistic, measured, totals)
    for name, values in measured.items():
        if values.dim() == 0 or values.shape[0] != batch.num_experts:
            raise PluginError(
                f"statistic {statistic.name!r}: {name!r} must have {batch.num_experts} experts in "
                f"its first dimension, not shape {tuple(values.shape)}"
            )
        if name in totals:
            totals[name] += values
        else:
            totals[name] = values.to(torch.float64, copy=True)


def _add_samples(
    statistic: Statistic,
    batch: LayerBatch,
    measured: Mapping[str, torch.Tensor],
    pieces: dict[str, list[np.ndarray]],
) -> None:
    _check_names(statistic, measured, pieces)
    for name, values in measured.items():
        if values.is_floating_point() and not torch.isfinite(values).all():
            raise PluginError(
                f"statistic {statistic.name!r}: {name!r} of layer {batch.layer} is not finite"
            )
        # numpy has no bfloat16.
        values = values.float() if values.dtype == torch.bfloat16 else values
        pieces.setdefault(name, []).append(values.cpu().numpy().copy())


def _check_names(
    statistic: Statistic, measured: Mapping[str, Any], before: Mapping[str, Any]
) -> None:
    if before and set(measured) != set(before):
        raise PluginError(
            f"statistic {statistic.name!r} returned arrays {sorted(measured)} after "
            f"{sorted(before)}: the names must not vary"
        )
