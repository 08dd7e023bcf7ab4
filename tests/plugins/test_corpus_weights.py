"""Learned weights of corpora against all masks and all weights of a grid."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import mbench
from helpers.synthetic import budget, scores
from mbench_plugins.corpus_weights import LearnedWeights, fairest, least_covered

RNG = np.random.default_rng(0)


def random_shares(seed: int, corpora: int, layers: int, experts: int) -> np.ndarray:
    values = np.random.default_rng(seed).gamma(0.5, size=(corpora, layers, experts))
    return values / values.sum(axis=2, keepdims=True)


def covered_by_weights(shares: np.ndarray, weights: np.ndarray, kept: int) -> float:
    """The objective of the weights: what they think is covered at most."""
    total = 0.0
    for layer in range(shares.shape[1]):
        weighted = sum(w * s[layer] for w, s in zip(weights, shares, strict=True))
        total += sum(sorted(weighted)[-kept:])
    return total / shares.shape[1]


@pytest.mark.parametrize(
    ("corpora", "layers", "experts", "kept"),
    [(2, 2, 5, 2), (3, 2, 5, 3), (2, 1, 8, 3), (3, 1, 7, 3), (1, 2, 5, 2), (2, 3, 4, 1)],
)
def test_no_mask_covers_the_worst_corpus_better_than_rounding_loses(corpora, layers, experts, kept):
    for seed in range(8):
        shares = random_shares(seed, corpora, layers, experts)
        weights, fraction, optimum = fairest(shares, kept)
        assert weights.sum() == pytest.approx(1)
        assert fraction.sum(axis=1) == pytest.approx(kept)
        assert least_covered(shares, fraction) == pytest.approx(optimum, rel=1e-8)
        # Duality, and a grid that knows nothing of linear programs.
        assert covered_by_weights(shares, weights, kept) == pytest.approx(optimum)
        grid = [
            np.array([*parts, 12 - sum(parts)]) / 12
            for parts in itertools.product(range(13), repeat=corpora - 1)
            if sum(parts) <= 12
        ]
        assert min(covered_by_weights(shares, w, kept) for w in grid) >= optimum - 1e-12

        given = {f"c{n}": scores(7 * (n + 1) * s) for n, s in enumerate(shares)}
        chosen = LearnedWeights().select(given, budget(layers, experts, kept), RNG)
        assert (chosen.chosen.sum(axis=1) == kept).all()
        reached = least_covered(shares, chosen.chosen)
        best = max(
            least_covered(shares, np.array([np.isin(np.arange(experts), m) for m in members]))
            for members in itertools.product(
                itertools.combinations(range(experts), kept), repeat=layers
            )
        )
        assert reached <= best + 1e-12
        assert best <= optimum + 1e-12
        # Rounding exchanges less than one expert in each layer where x is fractional.
        torn = (np.abs(fraction - fraction.round()) > 1e-9).any(axis=1)
        assert torn.sum() <= corpora
        largest = shares.max(axis=(0, 2))
        assert reached >= optimum - (largest * torn).sum() * (corpora - 1) / layers - 1e-12
        assert f"keeps {reached:.2%} of its score, at best {optimum:.2%}" in chosen.notes[1]


def test_a_corpus_that_others_cover_needs_no_weight():
    """Any experts cover the second corpus alike, and less of it: they are chosen by the first."""
    first = np.array([[5.0, 1, 1, 1, 0, 0, 0, 0]])
    second = np.ones((1, 8))
    given = {"a": scores(first), "b": scores(100 * second)}
    chosen = LearnedWeights().select(given, budget(1, 8, 2), RNG)
    assert chosen.chosen[0, 0]
    assert chosen.notes[0] == "weights of corpora: a 0.000, b 1.000"
    assert chosen.notes[1].startswith("the worst corpus keeps 25.00%")


def test_weights_do_not_depend_on_the_scale_of_a_corpus():
    shares = random_shares(3, 2, 4, 9)
    found = []
    for scale in (1.0, 1e4):
        given = {"a": scores(shares[0]), "b": scores(scale * shares[1])}
        found.append(LearnedWeights().select(given, budget(4, 9, 4), RNG))
    assert (found[0].chosen == found[1].chosen).all()
    assert found[0].notes == found[1].notes


def test_negative_scores_are_refused():
    with pytest.raises(mbench.PluginError, match="scores that are not negative"):
        LearnedWeights().select({"c": scores(np.array([[1.0, -1.0]]))}, budget(1, 2, 1), RNG)
