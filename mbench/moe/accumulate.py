"""Adding up what statistics measure; one that breaks its contract is left out, and no other."""

from __future__ import annotations

import contextlib
import functools
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from mbench.core.errors import (
    MbenchError,
    PluginError,
    StoreError,
    UnsupportedModel,
    one_line,
)
from mbench.core.interfaces import Statistic
from mbench.core.layer_data import LayerBatch, LayerWeights
from mbench.core.plugin_code import located
from mbench.moe.adapter import MoELayer
from mbench.moe.collected_samples import CollectedSamples
from mbench.moe.contract import add_sums, checked_samples, copied, inspected, measured
from mbench.moe.host import Copies, Doubts
from mbench.moe.sampled import SampledTokens, tokens_sampled_by
from mbench.moe.weights import layer_weights
from mbench.storage.sample_files import Sample, SampleFiles, scratch_sample


class Accumulator:
    """Totals per shard of `sum` statistics, and the samples of `concatenate` statistics."""

    def __init__(
        self,
        layers: Sequence[MoELayer],
        statistics: Sequence[Statistic],
        shards: int,
        total_tokens: int = 0,
        new_sample: Callable[[int | None], SampleFiles] = scratch_sample,
    ) -> None:
        """See `mbench.moe.profile.profile_model`; `total_tokens` are those of the corpus."""
        self.failures: dict[str, MbenchError] = {}
        """identity -> why a statistic was left out."""
        self._modules = layers
        self._layers = [layer.path for layer in layers]
        self._statistics = {each.identity: each for each in statistics}
        self._shards = shards
        self._asking = ""
        """The identity of the statistic that is measuring."""
        self._asked_residual: set[str] = set()
        self._names: dict[str, frozenset[str]] = {}
        # Totals of open shards stay on the layer's device: fetching them would make it wait.
        self._open: dict[tuple[int, str, int], dict[str, torch.Tensor]] = defaultdict(dict)
        self._norms: dict[tuple[int, int], torch.Tensor] = {}
        self._doubts = Doubts()
        self._sums: dict[str, dict[str, np.ndarray]] = defaultdict(dict)
        self._inspected_arrays: dict[str, dict[str, np.ndarray]] = defaultdict(dict)
        self._tokens: dict[str, np.ndarray] = {}
        self._samples = CollectedSamples(self._tokens, new_sample, self._leaving_out)
        for identity, statistic in list(self._statistics.items() if total_tokens else ()):
            with self._leaving_out(identity), located(statistic.sampled_tokens):
                named = tokens_sampled_by(statistic, total_tokens)
                if named is not None:
                    self._tokens[identity] = named
        self._sampled = SampledTokens(self._tokens)

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

    def samples(self, start: int, stop: int) -> list[np.ndarray]:
        """See `mbench.moe.record.Receiver`."""
        return self._sampled.of_batch(start, stop)

    def doubt(self, error: MbenchError, wrong: torch.Tensor) -> None:
        """See `mbench.moe.record.Receiver`."""
        self._doubts.add(self._asking, error, wrong)

    def add(
        self, layer: int, shard: int, batch: LayerBatch, every: Sequence[torch.Tensor | None]
    ) -> None:
        """Let every statistic that looks at text measure one layer's batch."""
        norms = batch.output_norm.sum(dtype=torch.float64)
        self._norms[shard, layer] = self._norms.get((shard, layer), 0) + norms
        shown: LayerBatch | None = None
        for identity, statistic in list(self._statistics.items()):
            if not statistic.measures():
                continue
            shown = shown or copied(batch)
            with self._leaving_out(identity), located(statistic.measure):
                self._asking = identity
                own = self._with_sampled(identity, self._noting_residual(identity, shown), every)
                arrays = measured(statistic, own)
                self._check_names(statistic, arrays)
                if statistic.combine == "sum":
                    totals = self._open[shard, identity, layer]
                    add_sums(statistic, batch.num_experts, arrays, totals)
                else:
                    known = len(own.sampled) if identity in self._tokens else None
                    arrays = checked_samples(statistic, arrays, known)
                    self._samples.add(statistic, layer, batch.layer, arrays)
            if identity in self.failures:
                shown = None  # It may have changed what others are to see.

    def _with_sampled(
        self, identity: str, batch: LayerBatch, every: Sequence[torch.Tensor | None]
    ) -> LayerBatch:
        """The batch with the rows that a statistic samples, and their outputs."""
        if identity not in self._tokens:
            return batch
        device, stop = batch.hidden.device, batch.start + len(batch.hidden)
        rows = self._sampled.rows(identity, batch.start, stop, device)
        known = every[self._sampled.number[identity]]

        def outputs(asked: torch.Tensor) -> torch.Tensor:
            if asked is not rows or known is None:
                return batch.expert_outputs(asked)
            return known.clone()  # Others may be given the same.

        return replace(batch, sampled=rows, expert_outputs=outputs)

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

    def close(self, shards: Sequence[int]) -> None:
        """Move the totals of shards to the results: the host waits for the devices here, and once.

        Raises:
            UnsupportedModel: the experts' outputs were not finite.
            StoreError: samples cannot be written.
        """
        norms = {place: total for place, total in self._norms.items() if place[0] in shards}
        open_totals = {place: each for place, each in self._open.items() if place[0] in shards}
        copies = Copies(
            [*norms.values(), *(total for each in open_totals.values() for total in each.values())]
        )
        self._samples.write()
        values = iter(copies.arrays())
        for place, total in zip(norms, values, strict=False):
            if not np.isfinite(total):
                raise UnsupportedModel(
                    f"{self._layers[place[1]]}: the experts' outputs are not finite; a wider dtype "
                    "may help"
                )
            del self._norms[place]
        for identity, error in self._doubts.settle().items():
            if identity in self._statistics:
                self._leave_out(identity, error)
        for (shard, identity, layer), totals in open_totals.items():
            fetched = {name: next(values) for name in totals}
            if identity in self._statistics:
                with self._leaving_out(identity):
                    self._move(identity, shard, layer, fetched)
            self._open.pop((shard, identity, layer), None)

    def _move(
        self, identity: str, shard: int, layer: int, totals: Mapping[str, np.ndarray]
    ) -> None:
        statistic, arrays = self._statistics[identity], self._sums[identity]
        for name, total in totals.items():
            if name in self._inspected_arrays.get(identity, {}):
                raise PluginError(
                    f"statistic {statistic.name!r}: {name!r} comes from `inspect` and `measure`"
                )
            place = (shard, layer)
            self._place(statistic, arrays, name, self._shards, place, total)

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

    def finished_samples(self) -> dict[str, Sample]:
        """identity -> array name -> arrays [t, ...] of all layers; nothing can be added then."""
        return self._samples.finish()

    def discard(self) -> None:
        """Remove the samples."""
        self._samples.discard()

    @contextlib.contextmanager
    def _leaving_out(self, identity: str) -> Iterator[None]:
        """Go on without a statistic that cannot be measured or added up."""
        try:
            yield
        except StoreError:
            raise
        except MbenchError as error:
            self._leave_out(identity, error)
        # What it returned may break any operation, e.g. on another device.
        except Exception as error:
            what = f"statistic {self._statistics[identity].name!r} returned what cannot be added up"
            self._leave_out(identity, PluginError(f"{what}: {one_line(error)}"))

    def _leave_out(self, identity: str, error: MbenchError) -> None:
        """Go on without a statistic, and free what it has collected."""
        # What it was given may have been wrong before it raised anything.
        self.failures[identity] = self._doubts.settle(identity).get(identity, error)
        del self._statistics[identity]
        self._tokens.pop(identity, None)
        self._sums.pop(identity, None)
        self._inspected_arrays.pop(identity, None)
        self._samples.drop(identity)
        for key in [key for key in self._open if key[1] == identity]:
            del self._open[key]

    def _check_names(self, statistic: Statistic, measured: Mapping[str, Any]) -> None:
        names = frozenset(measured)
        first = self._names.setdefault(statistic.identity, names)
        if names != first:
            raise PluginError(
                f"statistic {statistic.name!r} returned arrays {sorted(names)} after "
                f"{sorted(first)}: the names must not vary"
            )
