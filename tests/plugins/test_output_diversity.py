"""Determinants and facility location, step by step and against all sets."""

from __future__ import annotations

import itertools
import math
from functools import cache

import numpy as np
import pytest

import mbench
from helpers.synthetic import budget, profile
from helpers.tiny_models import qwen2_moe, random_sequences
from helpers.watched_layers import profiled, watch
from mbench_plugins import output_diversity
from mbench_plugins.expert_sparsity import sample_roles
from mbench_plugins.output_diversity import Dpp, FacilityLocation, OutputCosines

RNG = np.random.default_rng(0)
SEQUENCES = random_sequences([10, 7, 12, 3, 12, 1, 9])


@cache
def cosines_by_hand(tokens: int) -> list[np.ndarray]:
    """[N, N] of every layer, token by token."""
    chosen = np.flatnonzero(sample_roles(SEQUENCES.tokens, tokens, 0, 0))
    result = []
    for layer in watch(qwen2_moe(), SEQUENCES):
        total = np.zeros((8, 8))
        for outputs in layer.outputs[chosen]:
            for i, j in itertools.product(range(8), repeat=2):
                lengths = math.sqrt((outputs[i] @ outputs[i]) * (outputs[j] @ outputs[j]))
                total[i, j] += outputs[i] @ outputs[j] / lengths
        result.append(total)
    return result


@pytest.mark.parametrize("tokens", [8192, 7])
def test_the_statistic_sums_cosines_of_sampled_tokens(tokens, monkeypatch):
    monkeypatch.setattr(output_diversity, "VALUES_AT_ONCE", 3 * 8 * 32)
    statistic = OutputCosines(tokens=tokens)
    found = profiled(qwen2_moe(), SEQUENCES, (statistic,)).sums(statistic)["cosines"]
    expected = np.stack(cosines_by_hand(tokens))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * SEQUENCES.tokens)


def layer_of(seed: int, experts: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Scores [N], and cosines [N, N] of experts of which some are alike and one is a copy."""
    rng = np.random.default_rng(seed)
    directions = (
        rng.normal(size=(experts, 40)) + rng.normal(size=(3, 40))[rng.integers(0, 3, experts)]
    )
    directions[1] = directions[0]
    unit = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    return rng.gamma(2.0, size=experts), unit @ unit.T


def given_scores(layers: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, mbench.Scores]:
    """Sums over 5 tokens."""
    statistic = OutputCosines()
    values = np.stack([scores for scores, _ in layers])
    sums = {"cosines": np.stack([5 * cosines for _, cosines in layers])}
    shards = {name: array[None] for name, array in sums.items()}
    seen = profile({"x": values}, statistic)
    seen.shard_sums[statistic.identity].clear()
    seen.shard_sums[statistic.identity].update(shards)
    return {"c": mbench.Scores(values, seen)}


def log_det(kernel: np.ndarray, members: tuple[int, ...]) -> float:
    sign, value = np.linalg.slogdet(kernel[np.ix_(members, members)])
    return value if sign > 0 and value > -30 else -math.inf


def served(scores: np.ndarray, cosines: np.ndarray, members: tuple[int, ...]) -> float:
    return sum(
        score * max(max(0.0, cosines[e, m]) for m in members) for e, score in enumerate(scores)
    )


@pytest.mark.parametrize("quality", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("kept", [1, 3, 5, 7])
def test_dpp_adds_what_raises_the_determinant_most(kept, quality):
    for seed in range(6):
        scores, cosines = layer_of(seed)
        where = budget(1, 8, kept)
        selector = Dpp(quality=quality)
        chosen = selector.select(given_scores([(scores, cosines)]), where, RNG).chosen[0]
        weight = scores**quality
        kernel = weight[:, None] * cosines * weight
        step: list[int] = []
        for _ in range(kept):
            left = [e for e in range(8) if e not in step]
            step.append(max(left, key=lambda e: (round(log_det(kernel, (*step, e)), 9), -e)))
        assert sorted(step) == np.flatnonzero(chosen).tolist()
        # Never both copies, and never worse than what greedy choice is known to reach.
        assert not (chosen[0] and chosen[1])
        best = max(log_det(kernel, members) for members in itertools.combinations(range(8), kept))
        assert log_det(kernel, tuple(step)) >= best - 2 * math.log(math.factorial(kept)) - 1e-9
        assert log_det(kernel, tuple(step)) >= best - 0.6


def test_without_volume_or_score_the_best_scores_are_kept():
    scores = np.array([3.0, 0.0, 2.0, 0.0, 1.0, 0.0])
    given = given_scores([(scores, np.ones((6, 6)))])
    for selector in (Dpp(), FacilityLocation()):
        chosen = selector.select(given, budget(1, 6, 4), RNG).chosen[0]
        assert np.flatnonzero(chosen).tolist() == [0, 1, 2, 4]
    nothing = given_scores([(np.zeros(6), np.zeros((6, 6)))])
    for selector in (Dpp(), FacilityLocation()):
        chosen = selector.select(nothing, budget(1, 6, 2), RNG).chosen[0]
        assert np.flatnonzero(chosen).tolist() == [0, 1]


@pytest.mark.parametrize("kept", [1, 2, 4, 6])
def test_facility_location_is_greedy_and_near_the_best_set(kept):
    for seed in range(6):
        scores, cosines = layer_of(seed)
        selection = FacilityLocation().select(
            given_scores([(scores, cosines)]), budget(1, 8, kept), RNG
        )
        members = tuple(np.flatnonzero(selection.chosen[0]))
        step: list[int] = []
        for _ in range(kept):
            left = [e for e in range(8) if e not in step]
            step.append(
                max(left, key=lambda e: (round(served(scores, cosines, (*step, e)), 9), -e))
            )
        assert sorted(step) == list(members)
        best = max(served(scores, cosines, m) for m in itertools.combinations(range(8), kept))
        assert served(scores, cosines, members) >= (1 - 1 / math.e) * best
        assert served(scores, cosines, members) >= 0.95 * best


def test_corpora_count_alike_and_negative_scores_are_refused():
    layers = [layer_of(1), layer_of(2)]
    one = given_scores(layers)
    twice = {"a": one["c"], "b": one["c"]}
    for selector in (Dpp(), FacilityLocation()):
        alone = selector.select(one, budget(2, 8, 3), RNG).chosen
        assert (alone == selector.select(twice, budget(2, 8, 3), RNG).chosen).all()
        negative = {"c": mbench.Scores(one["c"].values - 9, one["c"].profile)}
        with pytest.raises(mbench.PluginError, match="scores that are not negative"):
            selector.select(negative, budget(2, 8, 3), RNG)
