"""Adding up what statistics measure; one that breaks its contract is left out, and no other."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from mbench.core.errors import MbenchError, PluginError, UnsupportedModel, one_line
from mbench.core.interfaces import Statistic
from mbench.core.layer_data import LayerBatch
from mbench.core.plugin_code import located, plugin_code
from mbench.moe.adapter import MoELayer


class Accumulator:
    """Totals per shard of `sum` statistics, and the pieces of `concatenate` statistics."""

    def __init__(
        self, layers: Sequence[MoELayer], statistics: Sequence[Statistic], shards: int
    ) -> None:
        self.failures: dict[str, MbenchError] = {}
        """identity -> why a statistic was left out."""
        self._layers = [layer.path for layer in layers]
        self._statistics = {each.identity: each for each in statistics}
        self._shards = shards
        self._names: dict[str, frozenset[str]] = {}
        # Totals of the open shard stay on the layer's device: fetching them would make it wait.
        self._open: dict[tuple[str, int], dict[str, torch.Tensor]] = defaultdict(dict)
        self._norms: dict[int, torch.Tensor] = {}
        self._sums: dict[str, dict[str, np.ndarray]] = defaultdict(dict)
        self._samples: dict[tuple[str, int], dict[str, list[np.ndarray]]] = defaultdict(dict)

    def add(self, layer: int, batch: LayerBatch) -> None:
        """Let every statistic measure one layer's batch."""
        norms = batch.output_norm.sum(dtype=torch.float64)
        self._norms[layer] = self._norms.get(layer, 0) + norms
        for identity, statistic in list(self._statistics.items()):
            with self._leaving_out(identity), located(statistic.measure):
                measured = _measured(statistic, batch)
                self._check_names(statistic, measured)
                if statistic.combine == "sum":
                    _add_sums(statistic, batch, measured, self._open[identity, layer])
                else:
                    _add_samples(statistic, batch, measured, self._samples[identity, layer])

    def close_shard(self, shard: int) -> None:
        """Move the open totals to the results of `shard`.

        Raises:
            UnsupportedModel: the experts' outputs were not finite.
        """
        for layer, total in self._norms.items():
            if not torch.isfinite(total):
                raise UnsupportedModel(
                    f"{self._layers[layer]}: the experts' outputs are not finite; a wider dtype "
                    "may help"
                )
        for (identity, layer), totals in list(self._open.items()):
            if identity not in self.failures:
                with self._leaving_out(identity):
                    self._move(identity, shard, layer, totals)
        self._open.clear()
        self._norms.clear()

    def _move(
        self, identity: str, shard: int, layer: int, totals: Mapping[str, torch.Tensor]
    ) -> None:
        results = self._sums[identity]
        for name, total in totals.items():
            values = total.cpu().numpy()
            what = f"statistic {self._statistics[identity].name!r}: {name!r}"
            if not np.isfinite(values).all():
                raise PluginError(f"{what} of layer {self._layers[layer]} is not finite")
            if name not in results:
                results[name] = np.zeros((self._shards, len(self._layers), *values.shape))
            if results[name].shape[2:] != values.shape:
                raise PluginError(
                    f"{what} has shape {values.shape} in layer {self._layers[layer]} after"
                    f" {results[name].shape[2:]}: it must not vary"
                )
            results[name][shard, layer] = values

    def sums(self) -> dict[str, dict[str, np.ndarray]]:
        """identity -> array name -> float64 [shards, L, N, ...]."""
        return {each: sums for each, sums in self._sums.items() if each not in self.failures}

    def samples(self) -> dict[str, dict[str, list[np.ndarray]]]:
        """identity -> array name -> arrays [t, ...] of all layers."""
        joined: dict[str, dict[str, list[np.ndarray]]] = {}
        for (identity, _), pieces in sorted(self._samples.items()):
            if identity in self.failures:
                continue
            arrays = joined.setdefault(identity, {})
            for name, parts in pieces.items():
                arrays.setdefault(name, []).append(np.concatenate(parts))
        return joined

    @contextlib.contextmanager
    def _leaving_out(self, identity: str) -> Iterator[None]:
        """Go on without a statistic that cannot be measured or added up."""
        try:
            yield
        except MbenchError as error:
            self._leave_out(identity, error)
        # What it returned may break any operation, e.g. on another device.
        except Exception as error:
            what = f"statistic {self._statistics[identity].name!r} returned what cannot be added up"
            self._leave_out(identity, PluginError(f"{what}: {one_line(error)}"))

    def _leave_out(self, identity: str, error: MbenchError) -> None:
        """Go on without a statistic, and free what it has collected."""
        self.failures[identity] = error
        del self._statistics[identity]
        self._sums.pop(identity, None)
        for collected in (self._open, self._samples):
            for key in [key for key in collected if key[0] == identity]:
                del collected[key]

    def _check_names(self, statistic: Statistic, measured: Mapping[str, Any]) -> None:
        names = frozenset(measured)
        first = self._names.setdefault(statistic.identity, names)
        if names != first:
            raise PluginError(
                f"statistic {statistic.name!r} returned arrays {sorted(names)} after "
                f"{sorted(first)}: the names must not vary"
            )


def _measured(statistic: Statistic, batch: LayerBatch) -> Mapping[str, torch.Tensor]:
    """Measure on copies: a change of the model's own tensors would go on into its output.

    Raises `PluginError` for what it raises, changes or returns against its contract.
    """
    fields = ("hidden", "top_k_index", "top_k_weight", "output_norm", "token", "ids")
    copies: dict[str, Any] = {name: getattr(batch, name).clone() for name in fields}
    versions = [tensor._version for tensor in copies.values()]
    with plugin_code(f"statistic {statistic.name!r}"):
        measured = statistic.measure(replace(batch, **copies))
    if [tensor._version for tensor in copies.values()] != versions:
        raise PluginError(f"statistic {statistic.name!r} changed a tensor that it only may read")
    if not isinstance(measured, Mapping):
        raise PluginError(
            f"statistic {statistic.name!r} must return tensors by name, got {type(measured)}"
        )
    for name, values in measured.items():
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
    return measured


def _add_sums(
    statistic: Statistic,
    batch: LayerBatch,
    measured: Mapping[str, torch.Tensor],
    totals: dict[str, torch.Tensor],
) -> None:
    for name, values in measured.items():
        if values.dim() == 0 or values.shape[0] != batch.num_experts:
            raise PluginError(
                f"statistic {statistic.name!r}: {name!r} must have {batch.num_experts} experts in "
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


def _add_samples(
    statistic: Statistic,
    batch: LayerBatch,
    measured: Mapping[str, torch.Tensor],
    pieces: dict[str, list[np.ndarray]],
) -> None:
    for name, values in measured.items():
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
