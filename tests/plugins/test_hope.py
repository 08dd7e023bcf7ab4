"""HOPE's matrix against a loop over tokens, and its choice against all sets of experts."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import mbench
from helpers.synthetic import budget, profile
from helpers.tiny_models import FAMILIES, random_sequences
from helpers.watched_layers import profiled, watch
from mbench_plugins.hope import Hope, interactions

SEQUENCES = random_sequences([10, 7, 12, 3, 12, 1, 9])


def dropped(matrices, number):
    """What HOPE drops of layers with these matrices F."""
    sums = {"product": matrices, "count": np.ones(matrices.shape)}
    given = profile(sums, mbench.CoActivation())
    scores = {"c": mbench.Scores(np.zeros(matrices.shape[:2]), given)}
    where = budget(*matrices.shape[:2], matrices.shape[1] - number)
    chosen = Hope().select(scores, where, np.random.default_rng(0)).chosen
    return [np.flatnonzero(~row) for row in chosen]


def matrices_like_a_model_s(count, experts, top_k=3, tokens=400):
    """F of random routing in which some experts are chosen more often and give more."""
    generator = np.random.default_rng(0)
    for _ in range(count):
        common = generator.standard_normal(experts) / 2
        share = np.zeros((tokens, experts))
        for row in share:
            logits = common + generator.standard_normal(experts)
            top = np.argsort(-logits)[:top_k]
            row[top] = np.exp(logits[top]) * generator.gamma(4, size=top_k)
        both = (share > 0).astype(float).T @ (share > 0)
        yield interactions({"product": share.T @ share, "count": both})


@pytest.mark.parametrize("family", ["qwen2_moe", "qwen3_moe"])
def test_the_matrix_is_a_mean_over_tokens_routed_to_both(family):
    found = interactions(
        profiled(FAMILIES[family](), SEQUENCES, Hope().needs).sums(mbench.CoActivation())
    )
    for number, layer in enumerate(watch(FAMILIES[family](), SEQUENCES)):
        products = [[[] for _ in range(8)] for _ in range(8)]
        for token, routed in enumerate(layer.routed):
            gates = layer.gates[token]
            gates = gates / gates[routed].sum() if family == "qwen3_moe" else gates
            share = gates * np.linalg.norm(layer.outputs[token], axis=1)
            for i, j in itertools.product(np.flatnonzero(routed), repeat=2):
                products[i][j].append(share[i] * share[j])
        expected = [[np.mean(each) if each else 0 for each in row] for row in products]
        np.testing.assert_allclose(found[number], expected, rtol=5e-5)


def test_without_interactions_the_smallest_are_dropped():
    diagonal = np.random.default_rng(1).gamma(1.0, size=(4, 12))
    matrices = np.stack([np.diag(row) for row in diagonal])
    for number in (1, 5, 11):
        expected = np.sort(np.argsort(diagonal, axis=1)[:, :number], axis=1)
        np.testing.assert_array_equal(dropped(matrices, number), expected)
    assert [len(row) for row in dropped(matrices, 0)] == [0] * 4


def test_the_choice_does_not_depend_on_how_large_outputs_are():
    matrix = next(matrices_like_a_model_s(count=1, experts=24))[None]
    for number in (6, 12, 18):
        (expected,) = dropped(matrix, number)
        for scale in (2.0**-30, 2.0**20):
            np.testing.assert_array_equal(dropped(matrix * scale, number)[0], expected)


def test_a_pair_that_matters_together_is_not_dropped_together():
    matrix = np.diag([1.0, 1.0, 1.2, 1.2])
    matrix[0, 1] = matrix[1, 0] = 2.0
    (first,) = dropped(matrix[None], 2)
    assert first.tolist() != [0, 1]
    assert matrix[np.ix_(first, first)].sum() == pytest.approx(2.4 if 2 in first else 2.2)


def test_the_choice_is_near_the_best_of_all_sets():
    gaps = []
    for matrix in matrices_like_a_model_s(count=40, experts=10):
        for number in (3, 5, 7):
            (found,) = dropped(matrix[None], number)
            sets = itertools.combinations(range(10), number)
            best = min(matrix[np.ix_(each, each)].sum() for each in sets)
            gaps.append(matrix[np.ix_(found, found)].sum() / best - 1)
    assert min(gaps) > -1e-9
    assert np.mean(np.array(gaps) < 1e-9) > 0.8
    assert max(gaps) < 0.1
