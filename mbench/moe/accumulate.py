"""Adding up what statistics measure; one that breaks its contract is left out, and no other."""

from __future__ import annotations

import contextlib
import functools
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from mbench.core.errors import MbenchError, PluginError, UnsupportedModel, one_line
from mbench.core.interfaces import Statistic
from mbench.core.layer_data import LayerBatch, LayerWeights
from mbench.core.plugin_code import located
from mbench.moe.adapter import MoELayer
from mbench.moe.contract import add_samples, add_sums, inspected, measured
from mbench.moe.weights import layer_weights


class Accumulator:
    """Totals per shard of `sum` statistics, and the pieces of `concatenate` statistics."""

    def __init__(
        self, layers: Sequence[MoELayer], statistics: Sequence[Statistic], shards: int
    ) -> None:
        self.failures: dict[str, MbenchError] = {}
        """identity -> why a statistic was left out."""
        self._modules = layers
        self._layers = [layer.path for layer in layers]
        self._statistics = {each.identity: each for each in statistics}
        self._shards = shards
        self._asked_residual: set[str] = set()
        self._names: dict[str, frozenset[str]] = {}
        # Totals of the open shard stay on the layer's device: fetching them would make it wait.
        self._open: dict[tuple[str, int], dict[str, torch.Tensor]] = defaultdict(dict)
        self._norms: dict[int, torch.Tensor] = {}
        self._sums: dict[str, dict[str, np.ndarray]] = defaultdict(dict)
        self._inspected_arrays: dict[str, dict[str, np.ndarray]] = defaultdict(dict)
        self._samples: dict[tuple[str, int], dict[str, list[np.ndarray]]] = defaultdict(dict)

    def inspect(self) -> None:
        """Let the statistics that look at weights see every layer, before any text."""
        for identity, statistic in list(self._statistics.items()):
            with self._leaving_out(identity):
                if statistic.problem:
                    raise PluginError(statistic.problem)
        for number, layer in enumerate(self._modules):
            # One view for all statistics, which reads what is offloaded only once.
            view = functools.cache(functools.partial(layer_weights, layer))
            for identity, statistic in list(self._statistics.items()):
                if statistic.inspects():
                    with self._leaving_out(identity), located(statistic.inspect):
                        self._enter_inspected(statistic, number, view())

    def _enter_inspected(self, statistic: Statistic, number: int, weights: LayerWeights) -> None:
        totals: dict[str, torch.Tensor] = {}
        add_sums(statistic, weights.num_experts, inspected(statistic, weights), totals)
        arrays = self._inspected_arrays[statistic.identity]
        if number and totals.keys() != arrays.keys():
            raise PluginError(
                f"statistic {statistic.name!r} returned arrays {sorted(totals)} after"
                f" {sorted(arrays)}: the names must not vary"
            )
        for name, values in totals.items():
            self._place(statistic, arrays, name, 1, (0, number), values.cpu().numpy())

    def add(self, layer: int, batch: LayerBatch) -> None:
        """Let every statistic that looks at text measure one layer's batch."""
        norms = batch.output_norm.sum(dtype=torch.float64)
        self._norms[layer] = self._norms.get(layer, 0) + norms
        for identity, statistic in list(self._statistics.items()):
            if not statistic.measures():
                continue
            with self._leaving_out(identity), located(statistic.measure):
                arrays = measured(statistic, self._noting_residual(identity, batch))
                self._check_names(statistic, arrays)
                if statistic.combine == "sum":
                    totals = self._open[identity, layer]
                    add_sums(statistic, batch.num_experts, arrays, totals)
                else:
                    add_samples(statistic, batch, arrays, self._samples[identity, layer])

    def _noting_residual(self, identity: str, batch: LayerBatch) -> LayerBatch:
        def residual() -> torch.Tensor:
            self._asked_residual.add(identity)
            # A change of the model's own would go on into its output.
            return batch.residual().clone()

        return replace(batch, residual=residual)

    def refuse_residual(self, problem: MbenchError | None) -> None:
        """Leave out what has asked for a residual stream that turned out to be none."""
        if problem is not None:
            for identity in self._asked_residual & self._statistics.keys():
                self._leave_out(identity, problem)

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
        statistic, arrays = self._statistics[identity], self._sums[identity]
        for name, total in totals.items():
            if name in self._inspected_arrays.get(identity, {}):
                raise PluginError(
                    f"statistic {statistic.name!r}: {name!r} comes from `inspect` and `measure`"
                )
            place = (shard, layer)
            self._place(statistic, arrays, name, self._shards, place, total.cpu().numpy())

    def _place(
        self,
        statistic: Statistic,
        arrays: dict[str, np.ndarray],
        name: str,
        shards: int,
        place: tuple[int, int],
        values: np.ndarray,
    ) -> None:
        """Enter an array's values for one shard and layer, if they are what they must be."""
        what = f"statistic {statistic.name!r}: {name!r}"
        path = self._layers[place[1]]
        if not np.isfinite(values).all():
            raise PluginError(f"{what} of layer {path} is not finite")
        if name not in arrays:
            arrays[name] = np.zeros((shards, len(self._layers), *values.shape))
        if arrays[name].shape[2:] != values.shape:
            raise PluginError(
                f"{what} has shape {values.shape} in layer {path} after"
                f" {arrays[name].shape[2:]}: it must not vary"
            )
        arrays[name][place] = values

    def sums(self) -> dict[str, dict[str, np.ndarray]]:
        """identity -> array name -> float64 [shards, L, N, ...], [1, L, N, ...] if inspected."""
        return {
            identity: {**self._inspected_arrays.get(identity, {}), **self._sums.get(identity, {})}
            for identity in self._statistics
            if identity in self._inspected_arrays or identity in self._sums
        }

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
        self._inspected_arrays.pop(identity, None)
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
