"""What is kept of a few sampled tokens while a corpus is profiled: where it lies, and who fails."""

from __future__ import annotations

import resource

import numpy as np
import pytest
import torch

from helpers.profiled import (
    ROUTING,
    SEQUENCES,
    assert_routing_sums_are_those_of_a_pass_alone,
    expert_output,
    model_and_layers,
)
from helpers.tiny_models import qwen2_moe, random_sequences
from helpers.watched_layers import expert_inputs
from mbench.core.basics import RoutingSums
from mbench.core.errors import StoreError
from mbench.core.interfaces import Parameters, Statistic
from mbench.moe.adapter import find_moe_layers
from mbench.moe.host import Copies
from mbench.moe.profile import profile_model
from mbench.storage.store import Store
from mbench_plugins.expert_sparsity import ReconstructionSample
from mbench_plugins.merging import MeanOutputs


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


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("announced", [True, False])
def test_a_sample_that_is_not_finite_is_named_and_leaves_nothing(
    announced, there, tmp_path, monkeypatch
):
    """Copies are there at once, or, as on a device, gather until they are waited for."""
    monkeypatch.setattr(Copies, "there", there)
    model, layers = model_and_layers("qwen2_moe")
    spoilt = SampledOutputs(announced=announced, spoilt=48)
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
    assert_routing_sums_are_those_of_a_pass_alone(collected, model, layers, batch_size=3, shards=2)


@pytest.mark.parametrize("announced", [True, False])
def test_a_disk_that_takes_no_more_is_one_line_and_leaves_nothing(announced, tmp_path):
    model, layers = model_and_layers("qwen2_moe")
    store = Store(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(StoreError, match=r"^cannot write \S+: File too large$"):
            profile_model(
                model,
                layers,
                SEQUENCES,
                [SampledOutputs(announced=announced), RoutingSums()],
                batch_size=3,
                new_sample=store.new_sample,
            )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list((tmp_path / "statistics").iterdir()) == []


def test_several_samples_at_once_are_those_of_passes_of_their_own():
    """In float16, one expert a token, a sequence of one token, more asked than there is."""
    model = qwen2_moe(num_experts_per_tok=1).to(torch.float16)
    layers = find_moe_layers(model)
    sequences = random_sequences([1, 20, 9])
    statistics = [
        ReconstructionSample(tokens=8, held_out=2),
        ReconstructionSample(tokens=8192, held_out=1024),
        SampledOutputs(),
        MeanOutputs(tokens=5),
    ]
    together = profile_model(model, layers, sequences, statistics, batch_size=2, shards=3)
    assert not together.failures
    for statistic in statistics:
        alone = profile_model(model, layers, sequences, [statistic], batch_size=2, shards=3)
        found = {**together.samples, **together.sums}[statistic.identity]
        expected = {**alone.samples, **alone.sums}[statistic.identity]
        for name in expected:
            for one, other in zip(found[name], expected[name], strict=True):
                np.testing.assert_array_equal(one, other, err_msg=f"{statistic.name}, {name}")
    tokens = [len(each) for each in together.samples[statistics[1].identity]["token"]]
    assert tokens == [sequences.tokens] * 2
