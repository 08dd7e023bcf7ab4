"""Watching a forward pass: every MoE layer's batch, as statistics are shown it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import nn

from mbench.core.errors import MbenchError, UnsupportedModel
from mbench.core.layer_data import LayerBatch
from mbench.moe.adapter import MoELayer
from mbench.moe.every_expert import all_inner_activations, all_outputs
from mbench.moe.experts import apply_with_norms, routed_outputs

if TYPE_CHECKING:
    from mbench.moe.adapter import ExpertsModule


class Receiver(Protocol):
    """Takes what a recorder sees."""

    def samples(self, start: int, stop: int) -> list[np.ndarray]:
        """Samples among the corpus's tokens start .. stop - 1 that every expert is computed on.

        Each is int64 [t], ascending.
        """

    def add(
        self, layer: int, shard: int, batch: LayerBatch, every: Sequence[torch.Tensor | None]
    ) -> None:
        """Take a layer's batch.

        Args:
            layer: its number.
            shard: that all tokens of the batch are in.
            batch: what was seen.
            every: [t, N, H] of each sample, all experts' outputs of its tokens in the batch; None
                where they were not computed.
        """

    def doubt(self, error: MbenchError, wrong: torch.Tensor) -> None:
        """Note an error, which is one if `wrong`, bool [], turns out to be true."""


@dataclass(frozen=True)
class _Piece:
    """Consecutive tokens of a batch that are in one shard."""

    shard: int
    start: int
    """The first one's index in the corpus."""
    tokens: int
    rows: slice | torch.Tensor
    """Of the batch, padding counted: that is left out."""
    samples: tuple[slice, ...]
    """Its own tokens among those of each sample."""

    def keep(self, tensor: torch.Tensor) -> torch.Tensor:
        """Its rows of a tensor for the whole batch."""
        return tensor[self.rows]


@dataclass(frozen=True)
class _Batch:
    """What is known of a batch before it is computed, on the host."""

    ids: torch.Tensor
    """[size], padding included."""
    samples: tuple[torch.Tensor, ...]
    """Row numbers, padding counted, of the tokens that every expert is computed on."""
    pieces: tuple[_Piece, ...]

    def on(self, device: torch.device) -> _Batch:
        """The same with tensors on a device."""

        def moved(value: torch.Tensor) -> torch.Tensor:
            return value.to(device, non_blocking=True)

        pieces = [
            replace(each, rows=moved(each.rows)) if isinstance(each.rows, torch.Tensor) else each
            for each in self.pieces
        ]
        return _Batch(moved(self.ids), tuple(map(moved, self.samples)), tuple(pieces))


class Recorder:
    """Computes the experts in the model's place and hands on what it saw."""

    def __init__(
        self,
        layers: Sequence[MoELayer],
        total_tokens: int,
        receiver: Receiver,
        residual: Callable[[int], torch.Tensor],
        *,
        masked: bool = False,
    ) -> None:
        """`masked`: a mask is active, so that routers may choose fewer experts than k."""
        self._layers = layers
        self._number = {layer.experts: number for number, layer in enumerate(layers)}
        self._total_tokens = total_tokens
        self._receiver = receiver
        self._masked = masked
        self._residual = residual
        self._tokens_before = 0
        self._batches: dict[torch.device, _Batch] = {}
        self._router_output: dict[int, Any] = {}
        self._seen: list[int] = []

    @contextlib.contextmanager
    def watch(self) -> Iterator[None]:
        """Keep each router's last output until its experts have been computed."""
        handles = []
        try:
            for number, layer in enumerate(self._layers):
                handles.append(layer.router.register_forward_hook(self._router_hook(number)))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _router_hook(self, number: int) -> Callable[[nn.Module, Any, Any], None]:
        def keep(router: nn.Module, args: Any, output: Any) -> None:
            self._router_output[number] = output

        return keep

    @contextlib.contextmanager
    def batch(self, ids: np.ndarray, lengths: np.ndarray, shards: np.ndarray) -> Iterator[None]:
        """Expect one forward call.

        Args:
            ids: token ids [sequences, length], padded on the right.
            lengths: [sequences] of the sequences.
            shards: [sequences], ascending, of the shard that each is in.

        Raises:
            UnsupportedModel: on exit, where a layer was not called exactly once.
        """
        self._batches = {torch.device("cpu"): self._described(ids, lengths, shards)}
        self._seen = []
        yield
        if sorted(self._seen) != list(range(len(self._layers))):
            missed = [
                layer.path for i, layer in enumerate(self._layers) if self._seen.count(i) != 1
            ]
            raise UnsupportedModel(f"{missed[0]} was not called exactly once in a forward call")
        self._tokens_before += int(lengths.sum())

    def _described(self, ids: np.ndarray, lengths: np.ndarray, shards: np.ndarray) -> _Batch:
        before, tokens = self._tokens_before, int(lengths.sum())
        inside = np.flatnonzero(np.arange(ids.shape[1]) < lengths[:, None])
        samples = [each - before for each in self._receiver.samples(before, before + tokens)]
        pieces = []
        start = 0
        for shard in np.unique(shards).tolist():
            stop = start + int(lengths[shards == shard].sum())
            rows = slice(start, stop) if tokens == ids.size else _tensor(inside[start:stop])
            if stop > start:
                own = [slice(*np.searchsorted(each, (start, stop)).tolist()) for each in samples]
                pieces.append(_Piece(shard, before + start, stop - start, rows, tuple(own)))
            start = stop
        rows_of = tuple(_tensor(inside[each]) for each in samples)
        return _Batch(_tensor(ids.reshape(-1)), rows_of, tuple(pieces))

    def apply_experts(
        self,
        experts: ExpertsModule,
        hidden: torch.Tensor,
        top_k_index: torch.Tensor,
        top_k_weights: torch.Tensor,
    ) -> torch.Tensor:
        """Compute the experts of one layer; registered in the place of the model's own function.

        Args:
            experts: whose outputs are computed.
            hidden: [T, H], T with padding.
            top_k_index: [T, k] experts that each token is routed to.
            top_k_weights: [T, k] what their outputs are multiplied by.

        Returns:
            [T, H] weighted sums of the experts' outputs.

        Raises:
            UnsupportedModel: the routing has another shape than the layer's.
        """
        number = self._number[experts]
        layer = self._layers[number]
        batch = self._batch_on(hidden.device)
        tokens, chosen = top_k_index.shape
        fits = chosen == layer.top_k or (self._masked and chosen < layer.top_k)
        if tokens != len(batch.ids) or not fits:
            raise UnsupportedModel(
                f"{layer.path} got routing {list(top_k_index.shape)} where "
                f"[{len(batch.ids)}, {layer.top_k}] was expected"
            )
        output, norms, every = apply_with_norms(
            experts, hidden, top_k_index, top_k_weights, batch.samples
        )
        self._seen.append(number)
        router_output = self._router_output.pop(number, None)
        for piece in batch.pieces:
            routing = tuple(map(piece.keep, (top_k_index, top_k_weights, norms)))
            shown = self._shown(number, batch, piece, piece.keep(hidden), routing, router_output)
            outputs = [
                None if of_batch is None else of_batch[own]
                for of_batch, own in zip(every, piece.samples, strict=True)
            ]
            self._receiver.add(number, piece.shard, shown, outputs)
        return output

    def _batch_on(self, device: torch.device) -> _Batch:
        if device not in self._batches:
            self._batches[device] = self._batches[torch.device("cpu")].on(device)
        return self._batches[device]

    def _shown(
        self,
        number: int,
        batch: _Batch,
        piece: _Piece,
        hidden: torch.Tensor,
        routing: tuple[torch.Tensor, ...],
        router_output: Any,
    ) -> LayerBatch:
        layer, device = self._layers[number], hidden.device
        index, weights, norms = routing
        return LayerBatch(
            layer=layer.path,
            num_experts=layer.num_experts,
            hidden=hidden,
            top_k_index=index,
            top_k_weight=weights,
            output_norm=norms,
            token=torch.arange(piece.start, piece.start + piece.tokens, device=device),
            ids=piece.keep(batch.ids),
            start=piece.start,
            total_tokens=self._total_tokens,
            sampled=torch.empty(0, dtype=torch.int64, device=device),
            residual=lambda: piece.keep(self._residual(number).flatten(0, -2)),
            router_logits=lambda: self._logits(layer, router_output, piece.keep, index, weights),
            routed_outputs=lambda: routed_outputs(layer.experts, hidden, index),
            expert_outputs=lambda rows: all_outputs(layer.experts, hidden[rows]),
            inner_activations=lambda rows: all_inner_activations(layer.experts, hidden[rows]),
        )

    def _logits(
        self,
        layer: MoELayer,
        output: Any,
        keep: Callable[[torch.Tensor], torch.Tensor],
        top_k_index: torch.Tensor,
        top_k_weight: torch.Tensor,
    ) -> torch.Tensor:
        """The float32 logits [T, N] among a router's outputs; T leaves out padding.

        Raises `UnsupportedModel` if there are none. That they are probabilities, or that a chosen
        expert with a higher logit has a lower weight, so that they are not what the weights came
        from, is found out on the device, which need not be waited for.
        """
        if self._masked:
            raise UnsupportedModel(
                f"{layer.path}: a masked router does not give the logits of the full model"
            )
        name = f"{layer.path}: {type(layer.router).__name__}"
        logits = keep(_found_logits(layer, name, output)).to(torch.float32, copy=True)
        probabilities = (logits >= 0).all() & ((logits.sum(dim=1) - 1).abs() < 1e-2).all()
        what = f"{name} returns probabilities where its logits were expected"
        self._receiver.doubt(UnsupportedModel(what), probabilities)
        by_weight = top_k_weight.argsort(dim=1, stable=True)
        weights = top_k_weight.gather(1, by_weight)
        ordered = logits.gather(1, top_k_index.gather(1, by_weight))
        # Equal weights may belong to logits that differ by less than the weights' precision.
        wrong = ((ordered.diff(dim=1) < 0) & (weights.diff(dim=1) > 0)).any()
        what = f"{name} does not rank the chosen experts by the logits it returns"
        self._receiver.doubt(UnsupportedModel(what), wrong)
        return logits


def _found_logits(layer: MoELayer, name: str, output: Any) -> torch.Tensor:
    found = [
        value.reshape(-1, layer.num_experts)
        for value in (output if isinstance(output, tuple) else (output,))
        if isinstance(value, torch.Tensor)
        and value.is_floating_point()
        and value.shape[-1] == layer.num_experts
    ]
    # Where k equals N the weights have the logits' shape; the logits come first in transformers.
    if not found or (len(found) > 1 and layer.top_k < layer.num_experts):
        raise UnsupportedModel(f"{name} does not return its logits")
    return found[0]


def _tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))
