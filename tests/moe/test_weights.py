"""Weights as statistics see them, against the families' own formulas; passes over weights alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from accelerate import cpu_offload

from helpers.family_cases import CASES, SEQUENCES, model_and_layers
from helpers.family_models import blocks, family_of
from helpers.family_oracle import array
from helpers.tiny_models import FAMILIES
from mbench.core.basics import RoutingSums
from mbench.core.errors import UnsupportedModel
from mbench.core.interfaces import Statistic
from mbench.moe.adapter import find_moe_layers
from mbench.moe.mask import masked
from mbench.moe.offload import settle
from mbench.moe.profile import inspect_weights, profile_model
from mbench.moe.weights import layer_weights


class Norms(Statistic):
    """Of router rows and of all projections."""

    name = "norms"

    def inspect(self, weights):
        experts = [weights.expert(number) for number in range(weights.num_experts)]
        parts = [[part for part in (e.gate, e.up, e.down) if part is not None] for e in experts]
        return {
            "router": weights.router.norm(dim=1),
            "parts": torch.stack([torch.stack([p.norm() for p in each]) for each in parts]),
        }


class Both(Norms):
    name = "both"

    def measure(self, batch):
        return RoutingSums().measure(batch)


@pytest.mark.parametrize("case", CASES)
def test_projections_give_each_expert_s_output(case):
    model, layers = model_and_layers(case)
    family = family_of(CASES[case][0])
    config = model.config.get_text_config()
    generator = np.random.default_rng(0)
    for layer, block in zip(layers, blocks(model), strict=True):
        weights = layer_weights(layer)
        router = array(block, family.router.weight)
        np.testing.assert_array_equal(weights.router.double().numpy(), router)
        for expert in (0, layer.num_experts - 1):
            own = weights.expert(expert)
            hidden = generator.standard_normal(own.up.shape[1])
            both = [own.up] if own.gate is None else [own.gate, own.up]
            inner = np.concatenate([part.double().numpy() @ hidden for part in both])
            down, bias = own.down.double().numpy(), 0
            if family.experts.biased:
                first = array(block.experts, "gate_up_proj_bias")[expert]
                inner = inner + np.concatenate((first[::2], first[1::2]))
                bias = array(block.experts, "down_proj_bias")[expert]
            if family.experts.inner.__name__.endswith("interleaved"):
                inner = np.stack(np.split(inner, 2), axis=1).ravel()
            output = down @ family.experts.inner(config, inner) + bias
            expected = family.experts.output(block.experts, config, expert, hidden)
            np.testing.assert_allclose(output, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("offloaded", [False, True])
def test_inspected_arrays_have_one_shard_and_float32_copies_change_nothing(offloaded):
    model = FAMILIES["qwen2_moe"]().to(torch.bfloat16)
    layers = find_moe_layers(model)
    gate_up = [layer.experts.gate_up_proj.double().numpy() for layer in layers]
    down = [layer.experts.down_proj.double().numpy() for layer in layers]
    router = [layer.router.weight.double().numpy() for layer in layers]
    if offloaded:
        cpu_offload(model)
        settle(model, layers)
        assert layers[0].experts.down_proj.is_meta
    own = layer_weights(layers[0]).expert(1)
    for tensor in (own.gate, own.up, own.down):
        assert tensor.dtype == torch.float32
        tensor.zero_()
    inspected = inspect_weights(layers, [Norms()])
    assert (inspected.failures, inspected.samples, inspected.tokens) == ({}, {}, 0)
    sums = inspected.sums[Norms().identity]
    assert sums["parts"].shape == (1, len(layers), 8, 3)
    assert sums["router"].dtype == np.float64
    for number in range(len(layers)):
        gate, up = np.split(gate_up[number], 2, axis=1)
        parts = np.stack([np.linalg.norm(p, axis=(1, 2)) for p in (gate, up, down[number])], axis=1)
        np.testing.assert_allclose(sums["parts"][0, number], parts, rtol=1e-5)
        rows = np.linalg.norm(router[number], axis=1)
        np.testing.assert_allclose(sums["router"][0, number], rows, rtol=1e-5)

    together = profile_model(model, layers, SEQUENCES, [Both(), Norms()], batch_size=2, shards=2)
    assert not together.failures
    both = together.sums[Both().identity]
    assert both["count"].shape == (2, len(layers), 8)
    for name, values in sums.items():
        np.testing.assert_array_equal(both[name], values)
        np.testing.assert_array_equal(together.sums[Norms().identity][name], values)


class NotFinite(Norms):
    def inspect(self, weights):
        return {"router": weights.router.norm(dim=1) / 0}


class Meddler(Norms):
    def inspect(self, weights):
        return {"router": weights.router.zero_().norm(dim=1)}


class OneShort(Norms):
    def inspect(self, weights):
        return {"router": weights.router[1:].norm(dim=1)}


class OtherNames(Norms):
    def inspect(self, weights):
        return {weights.layer: weights.router.norm(dim=1)}


class SameName(Norms):
    def measure(self, batch):
        return {"router": torch.ones(batch.num_experts)}


class Outside(Norms):
    def inspect(self, weights):
        return {"up": weights.expert(weights.num_experts).up}


@pytest.mark.parametrize(
    ("statistic", "message"),
    [
        (NotFinite(), "'router' of layer model.layers.0.mlp.experts is not finite"),
        (Meddler(), "changed a tensor that it only may read"),
        (OneShort(), r"must have 8 experts in its first dimension, not shape \(7,\)"),
        (OtherNames(), "the names must not vary"),
        (SameName(), "'router' comes from `inspect` and `measure`"),
        (Outside(), "has experts 0 to 7, not 8"),
    ],
)
def test_what_breaks_the_contract_is_left_out_alone(statistic, message):
    model = FAMILIES["qwen2_moe"]()
    layers = find_moe_layers(model)
    plain = profile_model(model, layers, SEQUENCES, [Both()], batch_size=2, shards=1)
    found = profile_model(model, layers, SEQUENCES, [statistic, Both()], batch_size=2, shards=1)
    with pytest.raises(type(found.failures[statistic.identity]), match=message):
        raise found.failures[statistic.identity]
    assert list(found.failures) == [statistic.identity]
    assert list(found.sums) == [Both().identity]
    for name, values in plain.sums[Both().identity].items():
        np.testing.assert_array_equal(found.sums[Both().identity][name], values)


def test_a_pass_over_weights_refuses_what_looks_at_text_and_what_is_masked():
    model = FAMILIES["qwen2_moe"]()
    layers = find_moe_layers(model)
    found = inspect_weights(layers, [RoutingSums(), Norms()])
    assert "looks at text" in str(found.failures[RoutingSums().identity])
    assert list(found.sums) == [Norms().identity]
    keep = np.arange(8) < 4
    refused = pytest.raises(UnsupportedModel, match=r"\(4, 32\).* where one of 8 rows")
    with masked(layers, np.tile(keep, (len(layers), 1))), refused:
        layer_weights(layers[0])
