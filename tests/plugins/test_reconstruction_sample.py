"""What the statistic of expert-sparsity samples of a real MoE layer, and the losses that follow."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import mbench
from helpers.sampled_blocks import (
    EXPERTS,
    HIDDEN,
    SMALL,
    TOKENS,
    TOP_K,
    measured,
    preserved_output,
    profile_of,
    profile_with,
    qwen_layers,
    sliced_output,
)
from mbench_plugins import expert_sparsity
from mbench_plugins.expert_sparsity import (
    Reconstruction,
    ReconstructionSample,
    layer_statistics,
    sample_roles,
)
from mbench_plugins.gram_statistics import renormalises


@pytest.mark.parametrize(
    ("renormalise", "router"), [(True, "sliced"), (False, "sliced"), (False, "preserved")]
)
@torch.no_grad()
def test_loss_is_the_error_of_the_pruned_block(renormalise, router):
    layers = qwen_layers(renormalise)
    profile = profile_of(layers, router)
    pruned = sliced_output if router == "sliced" else preserved_output
    for number, (block, hidden) in enumerate(layers):
        statistics, held_out, tokens = layer_statistics(
            profile, number, ReconstructionSample(**SMALL)
        )
        roles = sample_roles(TOKENS, **SMALL)
        assert tokens.tolist() == np.flatnonzero(roles == 1).tolist()
        full = sliced_output(block, hidden, list(range(EXPERTS)))
        for kept in ([0, 3, 4, 6], [5], [1, 2, 3, 4, 5, 6, 7]):
            keep = np.isin(np.arange(EXPERTS), kept)
            squared = (full - pruned(block, hidden, kept)).square().sum(dim=1).numpy()
            # Logits and inner products are kept in float32.
            assert statistics.loss(keep) == pytest.approx(squared[roles == 1].sum(), rel=1e-5)
            share = squared[roles == 2].sum() / full.square().sum(dim=1).numpy()[roles == 2].sum()
            assert held_out.relative_loss(keep) == pytest.approx(share, rel=1e-5)


def test_statistic_is_the_same_for_any_batch_size():
    (block, hidden), _ = qwen_layers(True)
    statistic = ReconstructionSample(**SMALL)
    whole = measured(statistic, block, hidden)
    assert len(whole["token"]) == 90
    assert whole["held_out"].sum() == 30
    # Batches of one token: most contain no token of the sample.
    for size in (1, 7, 50):
        parts = measured(statistic, block, hidden, size)
        assert parts.keys() == whole.keys()
        for name, values in whole.items():
            assert parts[name].dtype == values.dtype
            assert parts[name] == pytest.approx(values, rel=1e-6, abs=1e-7)


@torch.no_grad()
def test_statistic_equals_a_naive_computation(monkeypatch):
    (block, hidden), _ = qwen_layers(False)
    monkeypatch.setattr(expert_sparsity, "VALUES_AT_ONCE", 5 * EXPERTS * HIDDEN)
    arrays = measured(ReconstructionSample(**SMALL), block, hidden)
    for row, token in enumerate(arrays["token"]):
        logits = block.gate.weight @ hidden[token]
        assert arrays["router_logits"][row] == pytest.approx(logits.tolist(), rel=1e-5, abs=1e-6)
        weights, index = torch.softmax(logits, 0).topk(TOP_K)
        assert arrays["top_k_index"][row].tolist() == index.tolist()
        assert arrays["top_k_weight"][row] == pytest.approx(weights.tolist(), rel=1e-5)
        outputs = []
        for expert in range(EXPERTS):
            gate, up = (block.experts.gate_up_proj[expert] @ hidden[token]).chunk(2)
            outputs.append(block.experts.down_proj[expert] @ (gate * gate.sigmoid() * up))
        products = [
            float(outputs[i] @ outputs[j]) for i in range(EXPERTS) for j in range(i, EXPERTS)
        ]
        assert arrays["gram"][row] == pytest.approx(products, rel=1e-4, abs=1e-5)


def test_a_short_corpus_is_used_whole():
    roles = sample_roles(100, 300, 100, 0)
    assert np.bincount(roles).tolist() == [0, 75, 25]
    assert sample_roles(1, 8192, 1024, 0).tolist() == [1]
    sparse = sample_roles(10_000, 100, 0, 1)
    assert np.bincount(sparse).tolist() == [9_900, 100]
    # Spread over the corpus, and different for another seed.
    assert (np.bincount(np.flatnonzero(sparse) // 1_000, minlength=10) > 0).all()
    assert not np.array_equal(sparse, sample_roles(10_000, 100, 0, 2))


def routed(gates, top_k=3):
    index = np.argsort(-gates, axis=1, kind="stable")[:, :top_k]
    return index, np.take_along_axis(gates, index, axis=1)


def test_gates_tell_whether_a_router_renormalises():
    logits = np.random.default_rng(0).normal(size=(200, 10)).astype(np.float32)
    softmax = torch.softmax(torch.from_numpy(logits), dim=1).numpy()
    index, weight = routed(softmax)
    for factor in (1.0, 2.5):
        assert not renormalises(logits, index, factor * weight)
        assert renormalises(logits, index, factor * weight / weight.sum(axis=1, keepdims=True))
    rounded = torch.from_numpy(weight).bfloat16().float().numpy()
    assert not renormalises(logits, index, rounded)


@pytest.mark.parametrize("spread", [0.3, 3.0])
@pytest.mark.parametrize("normalise", [True, False])
def test_other_routers_are_refused(spread, normalise):
    logits = spread * np.random.default_rng(0).normal(size=(200, 10))
    sigmoid = 1 / (1 + np.exp(-logits))
    index, weight = routed(sigmoid)
    if normalise:
        weight = weight / weight.sum(axis=1, keepdims=True)
    with pytest.raises(ValueError, match="not a softmax"):
        renormalises(logits, index, weight)
    # Softmax gates, but chosen with a bias.
    softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    biased, _ = routed(softmax + np.arange(10))
    with pytest.raises(ValueError, match="largest logits"):
        renormalises(logits, biased, np.take_along_axis(softmax, biased, axis=1))


def test_a_refused_router_is_named():
    layers = qwen_layers(True)
    statistic = ReconstructionSample(**SMALL)
    samples = [measured(statistic, block, hidden) for block, hidden in layers]
    samples[1]["top_k_weight"] = samples[1]["top_k_weight"] ** 2
    profile = profile_with({statistic.identity: samples})
    with pytest.raises(mbench.UnsupportedModel, match=r"^model\.layers\.1.*not defined.*softmax"):
        Reconstruction(**SMALL).score(profile)
