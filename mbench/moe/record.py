"""Watching a forward pass: every MoE layer's batch, as statistics are shown it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from mbench.core.errors import UnsupportedModel
from mbench.core.layer_data import LayerBatch
from mbench.moe.adapter import MoELayer
from mbench.moe.experts import apply_expert, apply_with_norms, inner_activations, routed_outputs

if TYPE_CHECKING:
    from mbench.moe.adapter import ExpertsModule


class Recorder:
    """Computes the experts in the model's place and hands on what it saw."""

    def __init__(
        self,
        layers: Sequence[MoELayer],
        total_tokens: int,
        receive: Callable[[int, LayerBatch], None],
        residual: Callable[[int], torch.Tensor],
        *,
        masked: bool = False,
    ) -> None:
        """`masked`: a mask is active, so that routers may choose fewer experts than k."""
        self._layers = layers
        self._number = {layer.experts: number for number, layer in enumerate(layers)}
        self._total_tokens = total_tokens
        self._receive = receive
        self._masked = masked
        self._residual = residual
        self._tokens_before = 0
        self._inside = torch.empty(0, dtype=torch.bool)
        self._ids = torch.empty(0, dtype=torch.int64)
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
    def batch(self, ids: torch.Tensor, inside: torch.Tensor) -> Iterator[None]:
        """Expect one forward call on token ids [sequences, length].

        `inside` is bool of the same shape, False for padding.

        Raises:
            UnsupportedModel: on exit, where a layer was not called exactly once.
        """
        self._inside = inside.reshape(-1)
        self._ids = ids.reshape(-1)
        self._seen = []
        yield
        if sorted(self._seen) != list(range(len(self._layers))):
            missed = [
                layer.path for i, layer in enumerate(self._layers) if self._seen.count(i) != 1
            ]
            raise UnsupportedModel(f"{missed[0]} was not called exactly once in a forward call")
        self._tokens_before += int(self._inside.sum())

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
        tokens, chosen = top_k_index.shape
        fits = chosen == layer.top_k or (self._masked and chosen < layer.top_k)
        if tokens != len(self._inside) or not fits:
            raise UnsupportedModel(
                f"{layer.path} got routing {list(top_k_index.shape)} where "
                f"[{len(self._inside)}, {layer.top_k}] was expected"
            )
        output, norms = apply_with_norms(experts, hidden, top_k_index, top_k_weights)
        router_output = self._router_output.pop(number, None)
        keep = self._padding_filter(hidden.device)
        routing = keep(top_k_index), keep(top_k_weights)
        start = self._tokens_before
        self._seen.append(number)
        self._receive(
            number,
            LayerBatch(
                layer=layer.path,
                num_experts=layer.num_experts,
                hidden=keep(hidden),
                top_k_index=routing[0],
                top_k_weight=routing[1],
                output_norm=keep(norms),
                token=torch.arange(start, start + len(routing[0]), device=hidden.device),
                ids=keep(self._ids.to(hidden.device)),
                total_tokens=self._total_tokens,
                residual=lambda: keep(self._residual(number).flatten(0, -2)),
                router_logits=lambda: self._logits(layer, router_output, keep, *routing),
                routed_outputs=lambda: routed_outputs(experts, keep(hidden), routing[0]),
                expert_outputs=lambda rows: of_all(apply_expert, experts, keep(hidden)[rows]),
                inner_activations=lambda rows: of_all(
                    inner_activations, experts, keep(hidden)[rows]
                ),
            ),
        )
        return output

    def _logits(self, layer: MoELayer, *arguments: Any) -> torch.Tensor:
        if self._masked:
            raise UnsupportedModel(
                f"{layer.path}: a masked router does not give the logits of the full model"
            )
        return raw_logits(layer, *arguments)

    def _padding_filter(self, device: torch.device) -> Callable[[torch.Tensor], torch.Tensor]:
        if self._inside.all():
            return lambda tensor: tensor
        rows = self._inside.nonzero().squeeze(1).to(device)
        return lambda tensor: tensor[rows]


def of_all(
    compute: Callable[[ExpertsModule, int, torch.Tensor], torch.Tensor],
    experts: ExpertsModule,
    hidden: torch.Tensor,
) -> torch.Tensor:
    """Return [t, N, ...], what `compute` gives of every expert for hidden [t, H]."""
    results = [compute(experts, expert, hidden) for expert in range(experts.num_experts)]
    return torch.stack(results, dim=1)


def raw_logits(
    layer: MoELayer,
    output: Any,
    keep: Callable[[torch.Tensor], torch.Tensor],
    top_k_index: torch.Tensor,
    top_k_weight: torch.Tensor,
) -> torch.Tensor:
    """Return the float32 logits [T, N] among a router's outputs; T leaves out padding.

    Raises `UnsupportedModel` if there are none, if they are probabilities, or if a chosen expert
    with a higher logit has a lower weight, so that they are not what the weights came from.
    """
    found = [
        keep(value.reshape(-1, layer.num_experts)).to(torch.float32, copy=True)
        for value in (output if isinstance(output, tuple) else (output,))
        if isinstance(value, torch.Tensor)
        and value.is_floating_point()
        and value.shape[-1] == layer.num_experts
    ]
    name = f"{layer.path}: {type(layer.router).__name__}"
    # Where k equals N the weights have the logits' shape; the logits come first in transformers.
    if not found or (len(found) > 1 and layer.top_k < layer.num_experts):
        raise UnsupportedModel(f"{name} does not return its logits")
    logits = found[0]
    if bool((logits >= 0).all()) and bool(((logits.sum(dim=1) - 1).abs() < 1e-2).all()):
        raise UnsupportedModel(f"{name} returns probabilities where its logits were expected")
    by_weight = top_k_weight.argsort(dim=1, stable=True)
    weights = top_k_weight.gather(1, by_weight)
    ordered = logits.gather(1, top_k_index.gather(1, by_weight))
    # Equal weights may belong to logits that differ by less than the weights' precision.
    if bool(((ordered.diff(dim=1) < 0) & (weights.diff(dim=1) > 0)).any()):
        raise UnsupportedModel(f"{name} does not rank the chosen experts by the logits it returns")
    return logits
