"""What a profiling pass collects, against a slow float64 recomputation token by token."""

from __future__ import annotations

import re
from functools import cache

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode

from helpers.tiny_models import FAMILIES, olmoe, qwen2_moe, random_sequences
from helpers.watched_layers import expert_inputs
from mbench.core.basics import CoActivation, RoutingSums
from mbench.core.errors import PluginError, UnsupportedModel
from mbench.core.interfaces import ExpertMask, Parameters, Statistic
from mbench.core.stand_ins import Constants, Merged
from mbench.moe.adapter import find_moe_layers
from mbench.moe.every_expert import joint_outputs
from mbench.moe.experts import sorted_groups, sorted_loop
from mbench.moe.profile import profile_model
from mbench.run.profile_stage import corpus_profile
from mbench.storage.store import Store
from mbench_plugins.expert_sparsity import ReconstructionSample
from mbench_plugins.merging import MeanOutputs
from mbench_plugins.published_gates import PublishedRoutingSums
from mbench_plugins.shape import RoutedSets

SEQUENCES = random_sequences([10, 7, 12, 3, 12, 1, 9])
RENORMALISES = {"qwen2_moe": False, "olmoe": False}
ROUTING = RoutingSums().identity
NAMES = ("count", "gate", "norm", "gate_norm", "squared_norm")


@cache
def model_and_layers(family):
    model = FAMILIES[family]()
    return model, find_moe_layers(model)


def expert_output(layer, expert, hidden):
    gate, up = np.split(layer.experts.gate_up_proj[expert].double().numpy() @ hidden, 2)
    return layer.experts.down_proj[expert].double().numpy() @ (gate / (1 + np.exp(-gate)) * up)


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


class Everything(Statistic):
    """Keeps whatever a batch offers."""

    name = "everything"
    combine = "concatenate"

    def measure(self, batch):
        rows = torch.arange(len(batch.token))
        return {
            "hidden": batch.hidden,
            "token": batch.token,
            "index": batch.top_k_index,
            "weight": batch.top_k_weight,
            "norm": batch.output_norm,
            "logits": batch.router_logits(),
            "outputs": batch.expert_outputs(rows),
            "routed": batch.routed_outputs(),
            "inner": batch.inner_activations(rows),
            "total": torch.full((len(rows),), batch.total_tokens),
        }


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


class SampledOutputs(Statistic):
    """All experts' outputs of every third token, which are known before the pass or not."""

    name = "sampled-outputs"
    combine = "concatenate"

    class Params(Parameters):
        announced: bool = True
        spoilt: int = -1

    def sampled_tokens(self, total_tokens):
        return np.arange(0, total_tokens, 3) if self.params.announced else None

    def measure(self, batch):
        rows = batch.sampled
        if not self.params.announced:
            rows = (batch.token % 3 == 0).nonzero()[:, 0]
        outputs = batch.expert_outputs(rows)
        outputs[batch.token[rows] == self.params.spoilt] = torch.nan
        return {"outputs": outputs, "token": batch.token[rows]}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_outputs_of_sampled_tokens_are_bit_for_bit_those_computed_alone(dtype):
    """Batches cross shards, have padding, and experts more and fewer tokens than are sampled."""
    model = qwen2_moe().to(dtype)
    layers = find_moe_layers(model)
    sequences = random_sequences([40, 3, 33, 60, 1, 17])
    announced, not_announced = SampledOutputs(), SampledOutputs(announced=False)
    passes = [
        profile_model(model, layers, sequences, statistics, batch_size=4, shards=5)
        for statistics in ([announced, RoutingSums()], [RoutingSums()], [not_announced])
    ]
    for name, sums in passes[1].sums[ROUTING].items():
        np.testing.assert_array_equal(passes[0].sums[ROUTING][name], sums)
    together = passes[0].samples[announced.identity]
    alone = passes[2].samples[not_announced.identity]
    for number in range(len(layers)):
        np.testing.assert_array_equal(together["token"][number], np.arange(0, 154, 3))
        outputs = together["outputs"][number]
        np.testing.assert_array_equal(outputs, alone["outputs"][number])
    if dtype == torch.float32:
        hidden = expert_inputs(model, layers, sequences)
        for number, layer in enumerate(layers):
            expected = [
                [expert_output(layer, expert, row) for expert in range(8)]
                for row in hidden[number][::3]
            ]
            np.testing.assert_allclose(together["outputs"][number], expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("announced", [True, False])
def test_a_sample_that_is_not_finite_is_named_and_leaves_nothing(announced, tmp_path):
    model, layers = model_and_layers("qwen2_moe")
    spoilt = SampledOutputs(announced=announced, spoilt=21)
    store = Store(tmp_path)
    collected = profile_model(
        model,
        layers,
        SEQUENCES,
        [spoilt, RoutingSums()],
        batch_size=3,
        shards=2,
        new_sample=store.new_sample,
    )
    assert str(collected.failures[spoilt.identity]) == (
        "statistic 'sampled-outputs': 'outputs' of layer model.layers.0.mlp.experts is not finite"
    )
    assert spoilt.identity not in collected.samples
    assert list((tmp_path / "statistics").iterdir()) == []
    alone = profile_model(model, layers, SEQUENCES, [RoutingSums()], batch_size=3, shards=2)
    for name, sums in alone.sums[ROUTING].items():
        np.testing.assert_array_equal(collected.sums[ROUTING][name], sums)


class Waits(TorchFunctionMode):
    """Counts what makes the host wait for a device."""

    WAITING = ("item", "cpu", "__bool__", "__int__", "__float__", "nonzero", "unique", "tolist")

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.count += getattr(func, "__name__", "") in self.WAITING
        masks = args[1] if func is torch.Tensor.__getitem__ else ()
        for index in masks if isinstance(masks, tuple) else (masks,):
            self.count += isinstance(index, torch.Tensor) and index.dtype == torch.bool
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("method", ["routing", "expert-sparsity", "mean-outputs", "shape"])
def test_waits_for_the_device_grow_neither_with_batches_nor_with_layers(method, monkeypatch):
    """As on an accelerator, whose experts are grouped products: the CPU's loop reads counts."""

    def grouped(experts, hidden, index, weights, samples=()):
        norms = torch.empty(index.shape)
        output = sorted_groups(experts, hidden, index, weights, norms)
        return output, norms, [None] * len(samples)

    monkeypatch.setattr("mbench.moe.record.apply_with_norms", grouped)
    monkeypatch.setattr("mbench.moe.record.all_outputs", joint_outputs)
    statistic = {
        "routing": RoutingSums(),
        "expert-sparsity": ReconstructionSample(tokens=40, held_out=20),
        "mean-outputs": MeanOutputs(tokens=40),
        "shape": RoutedSets(tokens=40),
    }[method]
    counts = set()
    for layers, batch_size in ((1, 12), (1, 2), (3, 12), (3, 2)):
        model = qwen2_moe(num_hidden_layers=layers)
        sequences = random_sequences([10] * 12)

        def run(statistics, model=model, sequences=sequences, batch_size=batch_size):
            with Waits() as waits:
                found = find_moe_layers(model)
                collected = profile_model(
                    model, found, sequences, statistics, batch_size=batch_size, shards=2
                )
            assert not collected.failures
            return waits.count

        with Waits() as plain:
            for start in range(0, 12, batch_size):
                ids = torch.from_numpy(sequences.ids[start : start + batch_size])
                model.base_model(input_ids=ids, use_cache=False)
        counts.add(run([statistic]) - plain.count)
    assert max(counts) <= 4, counts


class WrongShape(Statistic):
    name = "wrong-shape"

    def measure(self, batch):
        return {"mean": batch.output_norm.mean()}


class NotFinite(Statistic):
    name = "not-finite"

    def measure(self, batch):
        return {"ratio": torch.full((batch.num_experts,), torch.nan)}


class ChangingNames(Statistic):
    name = "changing-names"

    def measure(self, batch):
        return {f"at {int(batch.token[0])}": torch.zeros(batch.num_experts)}


@pytest.mark.parametrize(
    ("statistic", "message"),
    [
        (WrongShape(), "'wrong-shape': 'mean' must have 8 experts"),
        (NotFinite(), "'not-finite': 'ratio' of layer model.layers.0.mlp.experts is not finite"),
        (ChangingNames(), "'changing-names' returned arrays .* names must not vary"),
    ],
)
def test_statistics_that_break_their_contract_are_named(statistic, message):
    model, layers = model_and_layers("qwen2_moe")
    together = [statistic, RoutingSums()]
    collected = profile_model(model, layers, SEQUENCES, together, batch_size=3, shards=2)
    (failure,) = collected.failures.values()
    assert isinstance(failure, PluginError)
    assert re.search(message, str(failure))
    assert statistic.identity not in {*collected.sums, *collected.samples}
    # The others are measured as if it had not been there.
    alone = profile_model(model, layers, SEQUENCES, [RoutingSums()], batch_size=3, shards=2)
    for name, sums in alone.sums[RoutingSums().identity].items():
        assert (collected.sums[RoutingSums().identity][name] == sums).all()


def test_a_model_that_overflows_is_named():
    model = qwen2_moe()
    model.model.layers[1].mlp.experts.down_proj.fill_(torch.inf)
    with pytest.raises(UnsupportedModel, match=r"layers.1.mlp.experts: .* not finite"):
        profile_model(
            model, find_moe_layers(model), SEQUENCES, [RoutingSums()], batch_size=3, shards=1
        )


def test_a_layer_that_is_never_called_is_named():
    model = qwen2_moe()
    layers = find_moe_layers(model)
    model.model.layers[1].mlp.forward = lambda hidden: hidden
    with pytest.raises(UnsupportedModel, match=r"layers.1.mlp.experts was not called"):
        profile_model(model, layers, SEQUENCES, [RoutingSums()], batch_size=3)


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        (lambda logits, gates, index: (gates, index), "does not return its logits"),
        (lambda logits, gates, index: (logits.softmax(-1), gates, index), "probabilities"),
        (lambda logits, gates, index: (-logits, gates, index), "does not rank"),
    ],
)
def test_logits_are_checked_before_they_are_believed(output, reason):
    model = qwen2_moe()
    router = model.model.layers[0].mlp.gate
    original = router.forward
    router.forward = lambda hidden: output(*original(hidden))
    block = model.model.layers[0].mlp
    if reason.endswith("its logits"):
        block.forward = lambda hidden: block.experts(
            hidden.flatten(0, 1), *router(hidden)[::-1]
        ).view(hidden.shape)
    collected = profile_model(
        model, find_moe_layers(model), SEQUENCES, [Everything()], batch_size=3, shards=1
    )
    failure = collected.failures[Everything().identity]
    assert isinstance(failure, UnsupportedModel)
    assert re.search(reason, str(failure))


class Meddler(Statistic):
    """Changes what it should only read."""

    name = "meddler"

    def measure(self, batch):
        batch.top_k_weight.mul_(3)
        return {"count": torch.zeros(batch.num_experts)}


def test_a_statistic_that_changes_the_models_tensors_is_refused():
    model, layers = model_and_layers("qwen2_moe")
    together = [Meddler(), RoutingSums()]
    collected = profile_model(model, layers, SEQUENCES, together, batch_size=4)
    assert "'meddler' changed a tensor" in str(collected.failures[Meddler().identity])
    alone = profile_model(model, layers, SEQUENCES, [RoutingSums()], batch_size=4)
    for name, sums in alone.sums[RoutingSums().identity].items():
        assert (collected.sums[RoutingSums().identity][name] == sums).all()


def test_choices_of_experts_with_stand_ins_are_counted_for_no_other():
    model, layers = model_and_layers("olmoe")
    experts, width = layers[0].num_experts, model.config.hidden_size
    keep = np.tile(np.arange(experts) % 2 == 0, (len(layers), 1))
    into = np.tile(np.arange(experts) // 2 * 2, (len(layers), 1))
    weights = keep.astype(np.float32)
    constants = Constants(np.zeros((*keep.shape, width), dtype=np.float32))
    for stand_in in (constants, Merged(into, weights)):
        mask = ExpertMask(keep, stand_in=stand_in)
        with pytest.raises(UnsupportedModel, match="constants or mapped experts"):
            profile_model(model, layers, SEQUENCES, [RoutingSums()], batch_size=3, mask=mask)
    mask = ExpertMask(keep, stand_in=Merged(into, weights, router="sliced"))
    found = profile_model(model, layers, SEQUENCES, [RoutingSums()], batch_size=3, mask=mask)
    counts = found.sums[ROUTING]["count"].sum(axis=0)
    assert (counts.sum(axis=1) == SEQUENCES.tokens * layers[0].top_k).all()
    assert (counts[~keep] == 0).all()
