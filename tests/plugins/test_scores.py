"""Scores of experts against their formulas, computed token by token and weight by weight."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

import mbench
from helpers.family_cases import CASES, model_and_layers
from helpers.family_models import blocks, family_of
from helpers.family_oracle import array, captured, softmax
from helpers.tiny_models import FAMILIES, random_sequences
from helpers.watched_layers import expert_weights, profiled, watch
from mbench.moe.adapter import find_moe_layers
from mbench.moe.profile import profile_model
from mbench_plugins.easy_ep import EasyEp
from mbench_plugins.reap import Reap, mbench_methods
from mbench_plugins.soft_mass import SoftMass
from mbench_plugins.weight_scores import Aimer, RouterNorm

SEQUENCES = random_sequences([10, 7, 12, 3, 12, 1, 9])
PUBLISHED = ["mixtral", "qwen3_moe", "glm4_moe", "glm4_moe grouped", "gpt_oss", "deepseek_v2"]
"""Routers that renormalise or not; a correction bias; groups; sigmoids; biased logits."""


def scored(scorer, model):
    return scorer.score(profiled(model, SEQUENCES, scorer.needs))


@pytest.mark.parametrize("family", ["qwen2_moe", "mixtral"])
def test_the_variants_are_sums_and_means_over_routed_tokens(family):
    model = FAMILIES[family]()
    methods = {each.name: each for each in mbench_methods()}
    found = {
        name: scored(Reap(**(method.scorer.params if method.scorer != "reap" else {})), model)
        for name, method in methods.items()
    }
    for number, layer in enumerate(watch(model, SEQUENCES)):
        for expert in range(8):
            tokens = np.flatnonzero(layer.routed[:, expert])
            norms, gates = [], []
            for token in tokens:
                norms.append(np.sqrt((layer.outputs[token, expert] ** 2).sum()))
                total = (
                    1.0 if family == "qwen2_moe" else layer.gates[token][layer.routed[token]].sum()
                )
                gates.append(layer.gates[token, expert] / total)
            norm, gate, count = np.array(norms), np.array(gates), len(tokens)
            expected = {
                "reap": (gate * norm).sum() / max(count, 1),
                "weighted-ean": (gate * norm).sum(),
                "expert-frequency": count,
                "gate-sum": gate.sum(),
                "ean": norm.sum(),
                "man": norm.sum() / max(count, 1),
                "msan": (norm**2).sum() / max(count, 1),
            }
            assert found.keys() == expected.keys()
            for name, value in expected.items():
                np.testing.assert_allclose(found[name][number, expert], value, rtol=2e-5)


@cache
def published_by_hand(case):
    """Logits [T, N] and output norms [T, N] of every layer, each token by itself."""
    model, layers = model_and_layers(case)
    family, config = family_of(CASES[case][0]), model.config.get_text_config()
    sequences = [
        torch.from_numpy(ids[:length])
        for ids, length in zip(SEQUENCES.ids, SEQUENCES.lengths, strict=True)
    ]
    result = []
    for block in blocks(model):
        modules = [block.get_submodule(family.router.module), block.experts]
        to_router, to_experts = captured(model, modules, sequences)
        logits = [family.router.logits(block, config, hidden) for hidden in to_router]
        norms = [
            [
                np.linalg.norm(family.experts.output(block.experts, config, expert, hidden))
                for expert in range(layers[0].num_experts)
            ]
            for hidden in to_experts
        ]
        result.append((np.array(logits), np.array(norms)))
    return result


@pytest.mark.parametrize("renormalised", [False, True])
@pytest.mark.parametrize("case", PUBLISHED)
def test_published_gates_are_a_softmax_over_all_of_the_top_logits(case, renormalised):
    model, layers = model_and_layers(case)
    reap = Reap(gates="renormalised" if renormalised else "softmax")
    found = scored(reap, model)
    counts = profiled(model, SEQUENCES, reap.needs).sums(reap.needs[0])["count"]
    for number, (logits, norms) in enumerate(published_by_hand(case)):
        total, count = np.zeros((2, layers[0].num_experts))
        for token, row in enumerate(logits):
            probability = softmax(row)
            top = sorted(range(len(row)), key=lambda expert: -row[expert])[: layers[0].top_k]
            scale = sum(probability[expert] for expert in top) if renormalised else 1.0
            for expert in top:
                count[expert] += 1
                total[expert] += probability[expert] / scale * norms[token, expert]
        np.testing.assert_array_equal(counts[number], count)
        np.testing.assert_allclose(found[number], total / np.maximum(count, 1), rtol=1e-4)


def test_published_gates_differ_where_a_bias_chooses_other_experts():
    """So the outputs of experts that the model did not route to are needed, and are right above."""
    model, _ = model_and_layers("glm4_moe grouped")
    published = Reap(gates="softmax", variant="count")
    assert (scored(published, model) != scored(Reap(variant="count"), model)).any()
    renormalising, _ = model_and_layers("mixtral")
    own, same = (scored(Reap(gates=gates), renormalising) for gates in ("model", "renormalised"))
    np.testing.assert_allclose(own, same, rtol=1e-5)
    assert not np.allclose(own, scored(Reap(gates="softmax"), renormalising), rtol=0.05)


def streams_by_hand(model, sequences):
    """[T, H] of every layer: what goes into the norm that its block's input comes from."""
    norms = [layer.post_attention_layernorm for layer in model.model.layers]
    return captured(model, norms, sequences)


@pytest.mark.parametrize("case", ["qwen2_moe", "mixtral", "glm4_moe", "gpt_oss"])
def test_easy_ep_weights_tokens_by_how_far_they_turn(case):
    model, layers = model_and_layers(case)
    family, config = family_of(CASES[case][0]), model.config
    found = scored(EasyEp(), model)
    sequences = [
        torch.from_numpy(ids[:length])
        for ids, length in zip(SEQUENCES.ids, SEQUENCES.lengths, strict=True)
    ]
    streams = streams_by_hand(model, sequences)[-len(layers) :]
    every = np.ones(layers[0].num_experts, dtype=bool)
    for number, block in enumerate(blocks(model)):
        modules = [block.get_submodule(family.router.module), block.experts]
        importance = np.zeros(layers[0].num_experts)
        for before, to_router, to_experts in zip(
            streams[number], *captured(model, modules, sequences), strict=True
        ):
            chosen, gates = family.router.route(block, config, to_router, layers[0].top_k, every)
            outputs = [family.experts.output(block.experts, config, e, to_experts) for e in chosen]
            after = before + sum(g * f for g, f in zip(gates, outputs, strict=True))
            cosine = before @ after / np.linalg.norm(before) / np.linalg.norm(after)
            for expert, gate, output in zip(chosen, gates, outputs, strict=True):
                importance[expert] += gate * np.linalg.norm(output) * max(1 - cosine, 0)
        np.testing.assert_allclose(found[number], importance, rtol=1e-3, atol=1e-6)


def test_easy_ep_refuses_experts_of_another_width_than_the_stream():
    model, layers = model_and_layers("nemotron_h")
    statistics = EasyEp().needs
    collected = profile_model(model, layers, SEQUENCES, statistics, batch_size=2, shards=1)
    with pytest.raises(mbench.UnsupportedModel, match="give 16 dimensions, not the 32"):
        raise collected.failures[statistics[0].identity]


def test_soft_mass_counts_probability_of_all_tokens():
    model = FAMILIES["olmoe"]()
    found = scored(SoftMass(), model)
    for number, layer in enumerate(watch(model, SEQUENCES)):
        expected = np.zeros(8)
        for logits in layer.logits:
            expected += softmax(logits)
        np.testing.assert_allclose(found[number], expected, rtol=1e-5)
    np.testing.assert_allclose(found.sum(axis=1), SEQUENCES.tokens, rtol=1e-5)


def test_weights_give_aimer_and_the_router_norm():
    model = FAMILIES["qwen3_moe"]()
    layers = find_moe_layers(model)
    layers[0].experts.gate_up_proj.data[5] = 0
    layers[0].experts.down_proj.data[5] = 0
    layers[1].experts.gate_up_proj.data[2] = 0.25
    layers[1].experts.down_proj.data[2] = -0.25
    aimer, norm = scored(Aimer(), model), scored(RouterNorm(), model)
    for number, layer in enumerate(layers):
        for expert in range(8):
            own = expert_weights(layer, expert)
            values = [float(v) for part in (own.gate, own.up, own.down) for v in part.reshape(-1)]
            mean = sum(abs(value) for value in values) / len(values)
            root = (sum(value**2 for value in values) / len(values)) ** 0.5
            np.testing.assert_allclose(
                -aimer[number, expert], mean / root if root else 0, rtol=1e-6
            )
            row = [float(value) for value in layer.router.weight[expert]]
            length = sum(value**2 for value in row) ** 0.5
            np.testing.assert_allclose(norm[number, expert], length, rtol=1e-6)
    assert (aimer[0, 5], aimer[1, 2]) == (0, pytest.approx(-1))


@pytest.mark.parametrize("case", CASES)
def test_aimer_is_the_same_for_every_layout(case):
    """All of an expert's weights count, in whatever form a family stores them."""
    model, layers = model_and_layers(case)
    scores = scored(Aimer(), model)
    for number, block in enumerate(blocks(model)):
        names = ("gate_up_proj" if layers[number].experts.has_gate else "up_proj", "down_proj")
        for expert in range(layers[number].num_experts):
            values = np.concatenate([array(block.experts, n)[expert].ravel() for n in names])
            expected = -np.abs(values).mean() / np.sqrt((values**2).mean())
            np.testing.assert_allclose(scores[number, expert], expected, rtol=1e-6)
