"""Layers of random experts as a reconstruction sample, and their routed output by plain loops."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import mbench


def routed_output(logits, outputs, keep, top_k, gates):
    """[T, H] by a loop over tokens, routing with Python's own sort."""
    result = np.zeros((len(outputs), outputs.shape[2]))
    for token, row in enumerate(logits.tolist()):
        allowed = [expert for expert in range(len(row)) if keep[expert]]
        routed = sorted(allowed, key=lambda expert: (-row[expert], expert))[:top_k]
        over = {"renormalised": routed, "retained": allowed, "full": range(len(row))}[gates]
        peak = max(row[expert] for expert in over)
        whole = math.fsum(math.exp(row[expert] - peak) for expert in over)
        for expert in routed:
            result[token] += math.exp(row[expert] - peak) / whole * outputs[token, expert]
    return result


def true_loss(logits, outputs, keep, top_k, gates):
    """J by its definition."""
    target = routed_output(logits, outputs, np.ones(len(keep), dtype=bool), top_k, gates)
    return ((target - routed_output(logits, outputs, keep, top_k, gates)) ** 2).sum()


def packed(outputs):
    """Upper triangles [T, N (N + 1) / 2] of the inner products of outputs [T, N, H]."""
    gram = outputs @ outputs.transpose(0, 2, 1)
    return gram[:, *np.triu_indices(outputs.shape[1])]


def random_outputs(rng, experts, tokens):
    """Logits [T, N] and outputs [T, N, 8] of experts that share directions and unequal use."""
    hidden = rng.normal(size=(tokens, 8))
    logits = hidden @ rng.normal(size=(8, experts)) + rng.normal(size=experts)
    weights = rng.normal(size=(experts // 2, 8, 8))[rng.integers(0, experts // 2, experts)]
    weights = weights + 0.7 * rng.normal(size=weights.shape)
    return logits, np.maximum(np.einsum("th,nhk->tnk", hidden, weights), 0)


def sample_arrays(logits, outputs, top_k, held_out=0) -> dict[str, Any]:
    """What the statistic `reconstruction-sample` gives for a layer that does not renormalise."""
    index = np.argsort(-logits, axis=1, kind="stable")[:, :top_k]
    softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return {
        "router_logits": logits,
        "gram": packed(outputs),
        "top_k_index": index,
        "top_k_weight": np.take_along_axis(softmax, index, axis=1),
        "token": np.arange(len(logits)),
        "held_out": np.arange(len(logits)) >= len(logits) - held_out,
    }


def sampled_profile(layers, top_k, corpus="c", router="sliced") -> mbench.Profile:
    """A profile whose every sample is `layers`, a list of `sample_arrays`."""
    tokens, experts = layers[0]["router_logits"].shape
    return mbench.Profile(
        corpus=corpus,
        layers=tuple(f"layer{number}" for number in range(len(layers))),
        num_experts=experts,
        top_k=top_k,
        tokens=tokens,
        router=router,
        shard_sums={},
        load_samples=lambda identity, layer: layers[layer],
    )
