"""What a profiling pass collects, against a slow float64 recomputation token by token."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from helpers.family_models import tiny_model
from helpers.profiled import ROUTING, SEQUENCES, Everything, expert_output, model_and_layers
from helpers.tiny_models import FAMILIES, olmoe, qwen2_moe, random_sequences
from helpers.watched_layers import expert_inputs
from mbench.core.basics import CoActivation, RoutingSums
from mbench.moe.adapter import find_moe_layers
from mbench.moe.experts import sorted_groups, sorted_loop
from mbench.moe.profile import profile_model
from mbench.run.profile_stage import corpus_profile
from mbench_plugins.published_gates import PublishedRoutingSums

RENORMALISES = {"qwen2_moe": False, "olmoe": False}
NAMES = ("count", "gate", "norm", "gate_norm", "squared_norm")


def slow_routing_sums(layer, hidden, renormalises):
    weight = layer.router.weight.double().numpy()
    sums = np.zeros((5, layer.num_experts))
    for token in hidden:
        logits = weight @ token
        probability = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        chosen = np.argsort(-probability)[: layer.top_k]
        total = probability[chosen].sum() if renormalises else 1.0
        for expert in chosen:
            gate = probability[expert] / total
            norm = np.linalg.norm(expert_output(layer, expert, token))
            sums[:, expert] += [1, gate, norm, gate * norm, norm**2]
    return dict(zip(NAMES, sums, strict=True))


@pytest.mark.parametrize("family", FAMILIES)
def test_routing_sums_match_the_slow_oracle(family):
    model, layers = model_and_layers(family)
    collected = profile_model(model, layers, SEQUENCES, [RoutingSums()], batch_size=3, shards=2)
    hidden = expert_inputs(model, layers, SEQUENCES)
    for number, layer in enumerate(layers):
        oracle = slow_routing_sums(layer, hidden[number], RENORMALISES.get(family, True))
        for name, expected in oracle.items():
            found = collected.sums[ROUTING][name].sum(axis=0)[number]
            np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-7, err_msg=name)


@pytest.mark.parametrize("family", ["qwen2_moe", "mixtral"])
def test_co_activation_counts_pairs_chosen_together(family):
    model, layers = model_and_layers(family)
    statistics = [CoActivation(), Everything()]
    collected = profile_model(model, layers, SEQUENCES, statistics, batch_size=3, shards=2)
    samples = collected.samples[Everything().identity]
    for number in range(len(layers)):
        expected = np.zeros((2, 8, 8))
        arrays = (samples[name][number] for name in ("index", "weight", "norm"))
        for index, weight, norm in zip(*arrays, strict=True):
            for i, first in enumerate(index):
                for j, second in enumerate(index):
                    product = float(weight[i]) * norm[i] * weight[j] * norm[j]
                    expected[:, first, second] += 1, product
        found = collected.sums[CoActivation().identity]
        np.testing.assert_array_equal(found["count"].sum(axis=0)[number], expected[0])
        np.testing.assert_allclose(found["product"].sum(axis=0)[number], expected[1], rtol=1e-6)


def test_batch_size_changes_nothing_but_rounding_and_shards_add_up():
    model, layers = model_and_layers("qwen2_moe")

    def routing(**options):
        return profile_model(model, layers, SEQUENCES, [RoutingSums()], **options).sums[ROUTING]

    one_by_one = routing(batch_size=1, shards=3)
    for batch_size in (2, 3, 100):
        batched = routing(batch_size=batch_size, shards=3)
        np.testing.assert_array_equal(batched["count"], one_by_one["count"])
        np.testing.assert_allclose(batched["gate_norm"], one_by_one["gate_norm"], rtol=1e-5)
    assert one_by_one["count"].shape == (3, 2, 8)
    assert one_by_one["count"].dtype == np.float64
    np.testing.assert_array_equal(one_by_one["count"].sum(axis=(0, 2)), 3 * SEQUENCES.tokens)
    many = routing(batch_size=2, shards=16)
    per_sequence = np.repeat(3 * SEQUENCES.lengths[:, None], 2, axis=1)
    np.testing.assert_array_equal(many["count"].sum(axis=2), per_sequence)
    np.testing.assert_allclose(many["norm"].sum(axis=0), one_by_one["norm"].sum(axis=0), rtol=1e-5)


def test_sequences_beside_longer_ones_get_the_rotary_angles_that_they_get_alone():
    rope = {"rope_type": "longrope", "rope_theta": 10_000.0, "factor": 4.0}
    rope |= {"original_max_position_embeddings": 8}
    rope |= {"short_factor": [1.0] * 4, "long_factor": [9.0] * 4}
    model = tiny_model("mixtral", head_dim=8, rope_parameters=rope).eval()
    layers = find_moe_layers(model)

    def norms(batch_size):
        found = profile_model(model, layers, SEQUENCES, [RoutingSums()], batch_size=batch_size)
        return found.sums[ROUTING]["gate_norm"]

    np.testing.assert_allclose(norms(7), norms(1), rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_profiled_forward_equals_the_plain_forward(dtype):
    model = qwen2_moe().to(dtype)
    layers = find_moe_layers(model)
    sequences = random_sequences([12, 12, 12])
    outputs = []
    handle = model.base_model.register_forward_hook(lambda *call: outputs.append(call[-1]))
    model(input_ids=torch.from_numpy(sequences.ids))
    before = model.config._experts_implementation
    profile_model(model, layers, sequences, [RoutingSums()], batch_size=3, shards=1)
    handle.remove()
    assert model.config._experts_implementation == before
    plain, profiled = (output.last_hidden_state for output in outputs)
    tolerance = 1e-5 if dtype == torch.float32 else 5e-2
    torch.testing.assert_close(profiled, plain, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("family", ["qwen2_moe", "mixtral"])
def test_batches_hold_every_token_once_in_corpus_order(family):
    model, layers = model_and_layers(family)
    collected = profile_model(model, layers, SEQUENCES, [Everything()], batch_size=3, shards=2)
    samples = collected.samples[Everything().identity]
    for number, hidden in enumerate(expert_inputs(model, layers, SEQUENCES)):
        layer = layers[number]
        found = {name: arrays[number] for name, arrays in samples.items()}
        np.testing.assert_array_equal(found["token"], np.arange(SEQUENCES.tokens))
        assert (found["total"] == SEQUENCES.tokens).all()
        np.testing.assert_allclose(found["hidden"], hidden, rtol=1e-4, atol=1e-5)
        logits = hidden @ layer.router.weight.double().numpy().T
        np.testing.assert_allclose(found["logits"], logits, rtol=1e-4, atol=1e-4)
        outputs = np.array(
            [[expert_output(layer, expert, row) for expert in range(8)] for row in hidden]
        )
        np.testing.assert_allclose(found["outputs"], outputs, rtol=1e-3, atol=1e-4)
        routed = np.take_along_axis(outputs, found["index"][:, :, None], axis=1)
        np.testing.assert_allclose(found["routed"], routed, rtol=1e-3, atol=1e-4)
        down = layer.experts.down_proj.double().numpy()
        rebuilt = np.einsum("nhi,tni->tnh", down, found["inner"])
        np.testing.assert_allclose(rebuilt, outputs, rtol=1e-3, atol=1e-4)
        norms = np.take_along_axis(np.linalg.norm(outputs, axis=2), found["index"], axis=1)
        np.testing.assert_allclose(found["norm"], norms, rtol=1e-4)


@pytest.mark.parametrize("family", ["qwen2_moe", "mixtral"])
def test_the_variant_for_accelerators_gives_the_same(family):
    _, layers = model_and_layers(family)
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(20, 32, generator=generator)
    index = torch.rand(20, 8, generator=generator).argsort(dim=1)[:, :3]
    weights = torch.rand(20, 3, generator=generator)
    results = []
    for compute in (sorted_loop, sorted_groups):
        norms = torch.empty(20, 3)
        results.append((compute(layers[0].experts, hidden, index, weights, norms), norms))
    torch.testing.assert_close(*results)


def test_sums_stay_exact_in_bfloat16():
    model = olmoe().to(torch.bfloat16)
    layers = find_moe_layers(model)
    sequences = random_sequences([60] * 20)
    collected = profile_model(
        model, layers, sequences, [RoutingSums(), Everything()], batch_size=4, shards=2
    )
    samples = collected.samples[Everything().identity]
    for number in range(len(layers)):
        expected = np.zeros(8)
        products = samples["weight"][number].astype(float) * samples["norm"][number]
        np.add.at(expected, samples["index"][number], products)
        found = collected.sums[ROUTING]["gate_norm"].sum(axis=0)[number]
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_gate_mass_is_the_probability_of_the_chosen_experts():
    model, layers = model_and_layers("olmoe")
    collected = profile_model(
        model, layers, SEQUENCES, [RoutingSums(), Everything()], batch_size=4, shards=2
    )
    profile = corpus_profile(RoutingSums(), collected.sums[ROUTING], SEQUENCES.tokens)
    counts = collected.sums[ROUTING]["count"].sum(axis=0)
    assert profile.never_selected == sum(count == 0 for count in counts.reshape(-1))
    logits = torch.from_numpy(np.array(collected.samples[Everything().identity]["logits"]))
    expected = logits.softmax(dim=-1).topk(3).values.sum(dim=-1).mean(dim=1)
    np.testing.assert_allclose(profile.gate_mass, expected, atol=1e-4)
    # Arrays of the same names may be of gates that the model does not use.
    published = PublishedRoutingSums(renormalised=True)
    found = profile_model(model, layers, SEQUENCES, [published], batch_size=4).sums
    other = corpus_profile(published, found[published.identity], SEQUENCES.tokens)
    assert (other.never_selected, other.gate_mass) == (None, ())


def test_progress_counts_every_token():
    model, layers = model_and_layers("qwen2_moe")
    done = []
    profile_model(model, layers, SEQUENCES, [], batch_size=2, shards=3, advance=done.append)
    assert sum(done) == SEQUENCES.tokens
    assert len(done) == 4
