"""What statistics should see of a small model, computed anew in float64, and what they saw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedModel

import mbench
from mbench.core.layer_data import ExpertWeights
from mbench.moe.adapter import MoELayer, find_moe_layers
from mbench.moe.calibration import TokenSequences
from mbench.moe.profile import profile_model


@dataclass(frozen=True)
class Watched:
    """One layer on all tokens of a corpus, float64; every expert computed on every token."""

    gates: np.ndarray
    """[T, N], softmax over the logits of all experts."""
    logits: np.ndarray
    """[T, N]."""
    routed: np.ndarray
    """bool [T, N]."""
    inner: np.ndarray
    """[T, N, I], what the down projections are given."""
    outputs: np.ndarray
    """[T, N, H], unweighted."""


def expert_weights(layer: MoELayer, expert: int) -> ExpertWeights:
    """One expert's projections, read from the model's own tensors."""
    gate, up = layer.experts.gate_up_proj[expert].chunk(2)
    return ExpertWeights(gate.clone(), up.clone(), layer.experts.down_proj[expert].clone())


def watch(model: PreTrainedModel, sequences: TokenSequences) -> list[Watched]:
    """Run each sequence alone and unpadded, and compute all experts of all layers by hand.

    For routers that are a softmax, and experts that are a SwiGLU.
    """
    layers = find_moe_layers(model)
    inputs = expert_inputs(model, layers, sequences)
    return [_watched(layer, hidden) for layer, hidden in zip(layers, inputs, strict=True)]


def expert_inputs(
    model: PreTrainedModel, layers: Sequence[MoELayer], sequences: TokenSequences
) -> list[np.ndarray]:
    """The hidden states float64 [T, H] of every layer, each sequence run alone and unpadded."""
    seen: dict[object, list[torch.Tensor]] = {layer.experts: [] for layer in layers}
    handles = [
        layer.experts.register_forward_pre_hook(lambda module, args: seen[module].append(args[0]))
        for layer in layers
    ]
    for ids, length in zip(sequences.ids, sequences.lengths, strict=True):
        model(input_ids=torch.from_numpy(ids[None, :length]))
    for handle in handles:
        handle.remove()
    return [torch.cat(seen[layer.experts]).double().numpy() for layer in layers]


def _watched(layer: MoELayer, hidden: np.ndarray) -> Watched:
    logits = hidden @ layer.router.weight.double().numpy().T
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    routed = np.zeros(logits.shape, dtype=bool)
    np.put_along_axis(routed, np.argsort(-logits, axis=1)[:, : layer.top_k], True, axis=1)
    inner, outputs = [], []
    for expert in range(layer.num_experts):
        weights = expert_weights(layer, expert)
        assert weights.gate is not None
        gate = hidden @ weights.gate.double().numpy().T
        inner.append(gate / (1 + np.exp(-gate)) * (hidden @ weights.up.double().numpy().T))
        outputs.append(inner[-1] @ weights.down.double().numpy().T)
    return Watched(
        exponentials / exponentials.sum(axis=1, keepdims=True),
        logits,
        routed,
        np.stack(inner, axis=1),
        np.stack(outputs, axis=1),
    )


def profiled(
    model: PreTrainedModel, sequences: TokenSequences, statistics: Sequence[mbench.Statistic]
) -> mbench.Profile:
    """The profile of a model on sequences, with these statistics."""
    layers = find_moe_layers(model)
    collected = profile_model(model, layers, sequences, statistics, batch_size=3, shards=2)
    assert not collected.failures
    return mbench.Profile(
        corpus="c",
        layers=tuple(layer.path for layer in layers),
        num_experts=layers[0].num_experts,
        top_k=layers[0].top_k,
        tokens=collected.tokens,
        router="sliced",
        shard_sums=collected.sums,
        load_samples=lambda identity, layer: {
            name: arrays[layer] for name, arrays in collected.samples[identity].items()
        },
    )
