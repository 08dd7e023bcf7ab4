"""Profiles and scores made of chosen numbers."""

from __future__ import annotations

import numpy as np

import mbench


def profile(
    sums: dict[str, np.ndarray], statistic: mbench.Statistic, corpus: str = "c", top_k: int = 2
) -> mbench.Profile:
    """A profile of one shard whose `statistic` has these sums [layers, N]."""
    layers, experts = next(iter(sums.values())).shape
    shards = {name: np.asarray(array, dtype=np.float64)[None] for name, array in sums.items()}
    return mbench.Profile(
        corpus=corpus,
        layers=tuple(f"layer{number}" for number in range(layers)),
        num_experts=experts,
        top_k=top_k,
        tokens=100,
        router="sliced",
        shard_sums={statistic.identity: shards},
        load_samples=lambda identity, layer: {},
    )


def scores(values: np.ndarray) -> mbench.Scores:
    """Scores with these values [layers, N] and an empty profile."""
    statistic = mbench.RoutingSums()
    return mbench.Scores(np.asarray(values, dtype=np.float64), profile({"x": values}, statistic))


def budget(layers: int, experts: int, kept: int) -> mbench.Budget:
    return mbench.Budget(
        retain=kept / experts, kept=kept, num_layers=layers, num_experts=experts, top_k=2
    )
