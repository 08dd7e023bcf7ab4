"""Pruned checkpoints beside the full one: which experts they hold, and what else they change.

Pairs are sliced here, altered here, and computed by stock transformers.
"""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.family_cases import IDS
from helpers.pruned_pairs import EXPERTS, logits, sliced
from helpers.tiny_models import random_sequences
from mbench.core.recognised import Recognised
from mbench.moe.adapter import find_moe_layers
from mbench.moe.load import load
from mbench.moe.mask import masked
from mbench.moe.recognition.recognise import recognise

LAYOUTS = ["qwen3_moe", "mixtral", "gpt_oss", "deepseek_v3", "granitemoe", "nemotron_h", "gemma4"]


@torch.no_grad()
def of_the_mask(folder, keep, ids):
    """Logits of the full model under a mask."""
    model = load(str(folder), device="cpu")
    with masked(find_moe_layers(model.model), keep):
        return model.model(input_ids=ids, use_cache=False).logits.double()


def distance(pruned, full, keep, ids=IDS):
    """How far the checkpoint's logits are from the mask's, relative to their size."""
    ours, theirs = of_the_mask(full, keep, ids), logits(pruned, ids)
    return float((ours - theirs).abs().max() / ours.abs().max())


@pytest.mark.parametrize("model_type", LAYOUTS)
def test_a_mask_is_recognised_and_computes_what_the_checkpoint_computes(tmp_path, model_type):
    pair = sliced(model_type, 4)
    full, pruned = pair.write(tmp_path)
    found = recognise(full, pruned)
    assert (found.differs, found.problems) == ((), ())
    assert found.is_mask
    np.testing.assert_array_equal(found.keep, pair.keep)
    assert [list(order) for order in found.order] == pair.order
    assert distance(pruned, full, found.keep) < 1e-5
    again = Recognised.from_json(json.loads(json.dumps(found.to_json())))
    np.testing.assert_array_equal(again.keep, pair.keep)


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_any_choice_in_any_order_is_found(tmp_path_factory, data):
    kept = data.draw(st.integers(3, EXPERTS))
    order = [data.draw(st.permutations(range(EXPERTS)))[:kept] for _ in range(2)]
    pair = sliced("qwen3_moe", order)
    full, pruned = pair.write(tmp_path_factory.mktemp("pair"))
    found = recognise(full, pruned)
    assert [list(each) for each in found.order] == order
    np.testing.assert_array_equal(found.keep, pair.keep)
    ascending = all(sorted(each) == each for each in order)
    assert found.is_mask == ascending
    moved = sum(sorted(each) != each for each in order)
    expected = () if ascending else (f"the order of experts in {moved} layer{'s' * (moved > 1)}",)
    assert found.differs == expected


def noise(pair, share, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for names in pair.experts:
        for name in names.values():
            tensor = pair.state[name]
            drawn = torch.randn(tensor.shape, generator=generator) * tensor.float().std()
            pair.state[name] = tensor + (share * drawn).to(tensor.dtype)


def scaled(pair):
    for name in pair.experts[1].values():
        pair.state[name] = pair.state[name].clone()
        pair.state[name][0] *= 0.7


def router_scaled(pair):
    for names in pair.routers:
        for name in names:
            pair.state[name] = pair.state[name] * 0.5


def router_trained(pair):
    name = pair.routers[0][0]
    pair.state[name] = pair.state[name] + 0.1 * torch.randn(pair.state[name].shape)


def bias_changed(pair):
    name = next(n for names in pair.routers for n in names if n.endswith("bias"))
    pair.state[name] = pair.state[name].flip(0)


def rows_swapped(pair):
    """Router rows change places, the experts do not."""
    for name in pair.routers[1]:
        pair.state[name] = pair.state[name].flip(0)


def named(*words):
    def change(pair):
        names = [n for n in pair.state if all(word in n for word in words)]
        assert names
        for name in names:
            pair.state[name] = pair.state[name] + 0.1 * torch.randn(pair.state[name].shape)

    return change


def configured(**values):
    def change(pair):
        for name, value in values.items():
            if name == "rope_parameters":
                pair.config.rope_parameters = {**pair.config.rope_parameters, **value}
            else:
                assert hasattr(pair.config, name)
                setattr(pair.config, name, value)

    return change


def neurons(pair):
    """The inner neurons of all experts of a layer in another order: the same function."""
    names, order = pair.experts[0], torch.randperm(16)
    gate_up = pair.state[names["gate_up_proj"]].clone()
    halves = gate_up.view(len(gate_up), 2, 16, -1)[:, :, order]
    pair.state[names["gate_up_proj"]] = halves.reshape(gate_up.shape)
    down = pair.state[names["down_proj"]]
    pair.state[names["down_proj"]] = down[:, :, order].clone()


ALTERED = {
    "trained by 5 %": ("qwen3_moe", lambda p: noise(p, 0.05), "expert values up to 5 %"),
    "trained by 20 %": ("mixtral", lambda p: noise(p, 0.2), "expert values up to 2"),
    "one scaled": ("qwen3_moe", scaled, "expert values up to 30 %, in 1 of the layers"),
    "router scaled": ("qwen3_moe", router_scaled, "router of 2 layers, scaled by 0.5"),
    "router trained": ("gpt_oss", router_trained, "router of 1 layer"),
    "router's bias": ("deepseek_v3", bias_changed, "router of 1 layer"),
    "rows swapped": ("mixtral", rows_swapped, "router of 1 layer"),
    "shared expert": ("qwen2_moe", named("shared_expert.", "0"), "3 tensors, e.g. "),
    "head": ("qwen3_moe", named("lm_head"), "1 tensor, e.g. lm_head.weight"),
    "attention": ("gpt_oss", named("q_proj", "weight"), "2 tensors, e.g. "),
    "norm": ("mixtral", named("model.norm"), "1 tensor, e.g. model.norm.weight"),
    "top-k": ("qwen3_moe", configured(num_experts_per_tok=2), "top-k 2 instead of 3"),
    "epsilon": ("qwen3_moe", configured(rms_norm_eps=0.1), "config.json: rms_norm_eps 0.1 instead"),
    "rope": (
        "mixtral",
        configured(rope_parameters={"rope_theta": 10.0}),
        "config.json: rope_parameters.rope_theta 10.0 instead of ",
    ),
    "renormalised": (
        "qwen3_moe",
        configured(norm_topk_prob=True),
        "config.json: norm_topk_prob true instead of false",
    ),
    "gates scaled": (
        "deepseek_v3",
        configured(routed_scaling_factor=1.0),
        "config.json: routed_scaling_factor 1.0 instead of 2.5",
    ),
    "window": (
        "mixtral",
        configured(sliding_window=3),
        "config.json: sliding_window 3 instead of none",
    ),
    "activation": ("qwen3_moe", configured(hidden_act="gelu"), 'config.json: hidden_act "gelu"'),
}


@pytest.mark.parametrize("name", ALTERED)
def test_whatever_changes_a_logit_is_named_and_the_mask_still_found(tmp_path, name):
    torch.manual_seed(0)
    model_type, change, words = ALTERED[name]
    pair = sliced(model_type, 4)
    change(pair)
    full, pruned = pair.write(tmp_path)
    found = recognise(full, pruned)
    assert not found.is_mask
    assert found.problems == ()
    np.testing.assert_array_equal(found.keep, pair.keep)
    assert [words in each for each in found.differs] == [True]
    # Whether it is an alteration at all is for the logits to say.
    assert distance(pruned, full, pair.keep) > 1e-4


def test_neurons_in_another_order_are_the_same_expert(tmp_path):
    torch.manual_seed(0)
    pair = sliced("qwen3_moe", 4)
    neurons(pair)
    full, pruned = pair.write(tmp_path)
    found = recognise(full, pruned)
    np.testing.assert_array_equal(found.keep, pair.keep)
    assert "the order of inner neurons in 4 experts" in found.differs
    assert distance(pruned, full, pair.keep) < 1e-5


def test_an_expert_whose_gates_and_inputs_are_exchanged_is_another_function(tmp_path):
    torch.manual_seed(0)
    pair = sliced("qwen3_moe", 4)
    name = pair.experts[0]["gate_up_proj"]
    halves = pair.state[name].unflatten(1, (2, -1)).clone()
    halves[1] = halves[1].flip(0)
    pair.state[name] = halves.flatten(1, 2)
    full, pruned = pair.write(tmp_path)
    found = recognise(full, pruned)
    assert found.keep is None
    assert not any("inner neurons" in words for words in found.differs)
    assert distance(pruned, full, pair.keep) > 1e-4


def merged(pair, weights, layer=1, expert=2):
    for attribute, name in pair.experts[layer].items():
        pair.state[name] = pair.state[name].clone()
        pair.state[name][expert] = sum(
            weight * pair.original(layer, attribute, each) for each, weight in weights.items()
        )


def random(pair):
    torch.manual_seed(7)
    for names in pair.experts:
        for name in names.values():
            pair.state[name] = 0.2 * torch.randn(pair.state[name].shape)


def duplicated(pair):
    for names in pair.experts:
        for name in names.values():
            pair.state[name] = pair.state[name].clone()
            pair.state[name][3] = pair.state[name][0]


PROBLEMS = {
    "half and half": (
        lambda p: merged(p, {1: 0.5, 6: 0.5}),
        r"layer 1: expert 2 is a merger: 0\.50 x \d \+ 0\.50 x \d$",
    ),
    "uneven merger": (
        lambda p: merged(p, {0: 0.7, 4: 0.2, 5: 0.1}),
        r"is a merger: 0\.70 x 0 \+ 0\.20 x 4 \+ 0\.10 x 5$",
    ),
    "turned": (lambda p: merged(p, {3: -1.0}), r"layer 1: expert 2 is -1\.00 x 3$"),
    "random": (random, r"is none of the full model's \(\d+ % unexplained\)"),
    "zero": (lambda p: merged(p, {0: 0.0}), "layer 1: expert 2 holds nothing but zeros"),
    "twice": (duplicated, r"layer 0: expert 3 is \d of the full model, as expert 0 is"),
    "not a number": (lambda p: merged(p, {0: float("nan")}), "numbers that are not finite"),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_what_is_no_selection_of_experts_is_said_as_such(tmp_path, name):
    change, words = PROBLEMS[name]
    pair = sliced("qwen3_moe", 4)
    change(pair)
    found = recognise(*pair.write(tmp_path))
    assert found.keep is None
    assert not found.is_mask
    assert any(re.search(words, each) for each in found.problems), found.problems


def test_the_order_of_experts_decides_in_half_precision(tmp_path):
    """Why another order is a difference: scores of the router are often equal there."""
    ids = torch.from_numpy(random_sequences([40] * 40).ids)
    orders = [[0, 2, 3, 5, 6, 7], [7, 6, 5, 3, 2, 0]]
    results = []
    for number, order in enumerate(orders):
        pair = sliced("olmoe", [order, order], torch.bfloat16)
        full, pruned = pair.write(tmp_path / str(number))
        found = recognise(full, pruned)
        assert found.is_mask == (number == 0)
        results.append(distance(pruned, full, pair.keep, ids))
    assert results[0] == 0.0
    assert results[1] > 0.01
