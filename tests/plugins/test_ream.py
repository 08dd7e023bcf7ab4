"""REAM's groups, neuron orders and weights, against its steps computed from a model by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

import mbench
from helpers.synthetic import budget
from helpers.tiny_models import qwen2_moe, random_sequences
from helpers.watched_layers import expert_weights, profiled, watch
from mbench.moe.adapter import find_moe_layers
from mbench_plugins.ream import Ream, matched_neurons, principal_components

SEQUENCES = random_sequences([10, 7, 12, 3, 12, 1, 9])
LAYERS, EXPERTS, KEPT, TOKENS = 2, 8, 3, SEQUENCES.tokens
ORDER = np.random.default_rng(5).permutation(16)


def model_with_copies():
    """Experts 4 and 6 of both layers are expert 1 with its inner neurons in another order."""
    model = qwen2_moe()
    with torch.no_grad():
        for layer in find_moe_layers(model):
            for copy in (4, 6):
                gate, up = layer.experts.gate_up_proj[1].chunk(2)
                layer.experts.gate_up_proj[copy] = torch.cat((gate[ORDER], up[ORDER]))
                layer.experts.down_proj[copy] = layer.experts.down_proj[1][:, ORDER]
                layer.router.weight[copy] = layer.router.weight[1] * 0.9
    return model


def built(model, builder, saliency, kept=KEPT):
    chosen = np.zeros((LAYERS, EXPERTS), dtype=bool)
    np.put_along_axis(chosen, np.argsort(-saliency, axis=1)[:, :kept], True, axis=1)
    scores = {"c": mbench.Scores(saliency, profiled(model, SEQUENCES, builder.needs))}
    space = budget(LAYERS, EXPERTS, kept)
    builder.check(space)
    mask = builder.build(mbench.Selection(chosen), scores, space, None)
    assert (mask.keep == chosen).all()
    assert mask.stand_in.router == "sliced"
    return mask.stand_in


def cosine(one, other):
    return one @ other / np.linalg.norm(one) / np.linalg.norm(other)


def groups_by_hand(layer, saliency, kept, size):
    """Steps 1 and 2 with loops over pairs of experts."""
    unit = layer.logits / np.linalg.norm(layer.logits, axis=0)
    apart = np.array(
        [[np.linalg.norm(unit[:, i] - unit[:, j]) for j in range(8)] for i in range(8)]
    )
    gated = (layer.outputs * layer.gates[:, :, None]).mean(axis=0)
    distance = np.empty((8, 8))
    for i, j in itertools.product(range(8), repeat=2):
        outputs = (cosine(gated[i], gated[j]) + 1) / 2
        distance[i, j] = 1 - (outputs + 1 - apart[i, j] / apart.max()) / 2
    centroids = sorted(range(8), key=lambda expert: -saliency[expert])[:kept]
    into = {centroid: centroid for centroid in centroids}
    for centroid in centroids:
        members = 1
        for expert in sorted(range(8), key=lambda expert: distance[centroid, expert]):
            if expert not in into and members < size:
                into[expert] = centroid
                members += 1
    return [into[expert] for expert in range(8)]


@pytest.mark.parametrize("size", [3, 4, 16])
def test_groups_and_weights(size):
    model = qwen2_moe()
    saliency = np.random.default_rng(0).random((LAYERS, EXPERTS))
    saliency[0, np.argmin(saliency[0])] = 0
    merged = built(model, Ream(group_size=size, tokens=1000), saliency)
    for number, layer in enumerate(watch(model, SEQUENCES)):
        row = saliency[number]
        assert merged.into[number].tolist() == groups_by_hand(layer, row, KEPT, size)
        worth = np.where(row > 0, row, min(0.5, row[row > 0].min()))
        for expert in range(EXPERTS):
            total = worth[merged.into[number] == merged.into[number, expert]].sum()
            np.testing.assert_allclose(merged.weights[number, expert], worth[expert] / total, 1e-6)


def test_copies_meet_neuron_by_neuron():
    model = model_with_copies()
    saliency = np.tile(np.array([0.5, 1.0, 0.8, 0, 0, 0, 0, 0]), (LAYERS, 1))
    merged = built(model, Ream(group_size=3, activation_tokens=20), saliency)
    for number, layer in enumerate(find_moe_layers(model)):
        assert np.flatnonzero(merged.into[number] == 1).tolist() == [1, 4, 6]
        original = expert_weights(layer, 1)
        for copy in (4, 6):
            order = merged.neurons[number, copy]
            weights = expert_weights(layer, copy)
            assert torch.equal(weights.gate[order], original.gate)
            assert torch.equal(weights.up[order], original.up)
            assert torch.equal(weights.down[:, order], original.down)
        assert merged.neurons[number, [0, 1, 2]].tolist() == [list(range(16))] * 3


def test_neurons_are_matched_at_the_least_cost_of_all_orders():
    rng = np.random.default_rng(1)
    features = [rng.standard_normal((2, 5, 7)), rng.standard_normal((2, 5, 3))]

    def cost(order):
        total = 0.0
        for values in features:
            unit = values / np.linalg.norm(values, axis=2, keepdims=True)
            pairs = zip(unit[1], unit[0][list(order)], strict=True)
            total += sum(np.linalg.norm(one - other) for one, other in pairs)
        return total

    best = min(itertools.permutations(range(5)), key=cost)
    assert matched_neurons(features, np.array([1, 1]))[0].tolist() == list(best)


@pytest.mark.parametrize("shape", [(200, 96), (40, 96)])
def test_components_are_those_of_an_exact_decomposition(shape):
    # A spectrum that falls off, as that of weights does.
    rows = np.random.default_rng(2).standard_normal(shape) * 0.95 ** np.arange(shape[1])
    found = principal_components(torch.from_numpy(rows), 12).numpy()
    centred = rows - rows.mean(axis=0)
    _, singular, axes = np.linalg.svd(centred, full_matrices=False)
    exact = centred @ axes[:12].T * singular[:12]
    # Axes have no sign, and what counts is distances.
    difference = np.linalg.norm(found @ found.T - exact @ exact.T)
    assert difference < 1e-3 * np.linalg.norm(exact @ exact.T)


def test_keeping_all_changes_nothing():
    merged = built(qwen2_moe(), Ream(), np.random.default_rng(0).random((2, 8)), kept=8)
    assert (merged.into == np.arange(8)).all()
    assert (merged.weights == 1).all()
    assert (merged.neurons == np.arange(16)).all()


def test_groups_that_cannot_hold_all_experts_are_refused():
    with pytest.raises(mbench.Infeasible, match=r"3 groups of at most 2 .* cannot hold 8"):
        Ream(group_size=2).check(budget(LAYERS, EXPERTS, 3))
