"""Uneven masks and stand-ins are what weights changed by hand compute, in every family."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.changed_by_hand import (
    merged_by_hand,
    sliced_by_hand,
    unevenly_sliced_by_hand,
    with_constants_by_hand,
)
from helpers.drawn_masks import constants_mask, merged_mask, uneven_keep
from helpers.family_cases import CASES, logits_of, model_and_layers, random_keep
from helpers.family_models import blocks, family_of
from mbench.core.errors import UnsupportedModel
from mbench.core.interfaces import ExpertMask
from mbench.core.stand_ins import Constants, Merged
from mbench.moe.adapter import find_moe_layers
from mbench.moe.experts import experts_function, fast_experts, sorted_loop
from mbench.moe.mask import masked
from mbench.moe.prune import prune

each_case = pytest.mark.parametrize("case", CASES)


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def logits_under(case, mask, router="sliced"):
    model, layers = model_and_layers(case)
    with masked(layers, mask, router):
        logits = logits_of(model)
        with fast_experts(layers):
            close(logits_of(model), logits)
    return logits


def pruned(case, mask):
    model, layers = model_and_layers(case)
    smaller = prune(model, layers, mask)
    assert smaller.num_parameters() < model.num_parameters()
    return logits_of(smaller)


@each_case
def test_uneven_layers_are_blocks_of_stock_models_with_as_many_experts(case):
    _, layers = model_and_layers(case)
    for seed in range(2):
        keep = uneven_keep(layers, np.random.default_rng(seed))
        expected = logits_of(unevenly_sliced_by_hand(case, keep))
        close(logits_under(case, keep), expected)
        close(pruned(case, keep), expected)


@each_case
def test_a_mapped_merge_is_the_full_model_with_equal_experts_in_a_group(case):
    _, layers = model_and_layers(case)
    generator = np.random.default_rng(2)
    mask = merged_mask(layers, uneven_keep(layers, generator), generator)
    merged = mask.stand_in
    state = merged_by_hand(case, merged.into, merged.weights, merged.neurons, everywhere=True)
    by_hand = unevenly_sliced_by_hand(case, np.ones_like(mask.keep), state)
    logits = logits_under(case, mask)
    close(logits, logits_of(by_hand))
    close(pruned(case, mask), logits)
    assert torch.equal(logits_under(case, mask, "preserved"), logits)


@each_case
def test_a_sliced_merge_is_a_stock_model_of_fewer_experts(case):
    _, layers = model_and_layers(case)
    generator = np.random.default_rng(3)
    even = random_keep(layers, layers[0].num_experts // 2)
    for keep in (even, uneven_keep(layers, generator)):
        mask = merged_mask(layers, keep, generator, "sliced")
        merged = mask.stand_in
        state = merged_by_hand(case, merged.into, merged.weights, merged.neurons, everywhere=False)
        build = sliced_by_hand if keep is even else unevenly_sliced_by_hand
        expected = logits_of(build(case, keep, state))
        close(logits_under(case, mask), expected)
        close(pruned(case, mask), expected)


@each_case
def test_constants_are_added_with_the_full_routers_gates(case):
    _, layers = model_and_layers(case)
    generator = np.random.default_rng(4)
    keep = random_keep(layers, layers[0].groups)
    for kept in (keep, uneven_keep(layers, generator)):
        mask = constants_mask(layers, kept, generator)
        expected = logits_of(with_constants_by_hand(case, kept, mask.stand_in.outputs))
        logits = logits_under(case, mask)
        close(logits, expected)
        close(pruned(case, mask), expected)
        assert torch.equal(logits_under(case, mask, "preserved"), logits)


@each_case
def test_the_order_of_inner_neurons_changes_nothing(case):
    model, layers = model_and_layers(case)
    generator = np.random.default_rng(5)
    keep = np.ones((len(layers), layers[0].num_experts), dtype=bool)
    itself = np.tile(np.arange(keep.shape[1]), (len(layers), 1))
    neurons = merged_mask(layers, keep, generator).stand_in.neurons
    mask = ExpertMask(keep, (), Merged(itself, np.ones(keep.shape, np.float32), neurons))
    close(logits_under(case, mask), logits_of(model))


@pytest.mark.parametrize("case", ["olmoe", "gpt_oss", "aria_text", "nemotron_h"])
def test_matched_neurons_undo_another_order_of_them(case):
    """An expert merged with a copy of itself, whose neurons are in another order, stays itself."""
    model, layers = model_and_layers(case)
    generator = np.random.default_rng(11)
    keep = np.ones((len(layers), layers[0].num_experts), dtype=bool)
    orders = merged_mask(layers, keep, generator).stand_in.neurons
    itself = np.tile(np.arange(keep.shape[1]), (len(layers), 1))
    state = merged_by_hand(case, itself, np.ones(keep.shape), orders, everywhere=True)
    into = itself.copy()
    into[:, 1:4] = 1
    keep[:, 2:4] = False
    weights = np.where(into == 1, 1 / 3, 1).astype(np.float32)
    logits = []
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for block in blocks(model):
        for tensor in block.experts.parameters():
            key = next(key for key, each in model.named_parameters() if each is tensor)
            tensor[2], tensor[3] = before[key][1], state[key][1]
    try:
        for neurons in ("matched", None):
            merged = Merged(into, weights, neurons)
            logits.append(logits_under(case, ExpertMask(keep, (), merged)))
        plain = Merged(into, np.where(keep, 1, 0).astype(np.float32))
        logits.append(logits_under(case, ExpertMask(keep, (), plain)))
    finally:
        model.load_state_dict(before)
    close(logits[0], logits[2])
    assert not torch.allclose(logits[1], logits[2], atol=1e-3)


@each_case
def test_preserved_gates_go_with_uneven_masks_and_sliced_merges(case):
    model, layers = model_and_layers(case)
    if layers[0].groups > 1 or family_of(CASES[case][0]).preserved is not None:
        return
    generator = np.random.default_rng(6)
    keep = uneven_keep(layers, generator)
    mask = merged_mask(layers, keep, generator, "sliced", aligned=False)
    merged = mask.stand_in
    state = merged_by_hand(case, merged.into, merged.weights, None, everywhere=False)
    before = model.state_dict()
    before = {name: tensor.clone() for name, tensor in before.items()}
    logits = logits_under(case, mask, "preserved")
    model.load_state_dict(state)
    try:
        close(logits, logits_under(case, keep, "preserved"))
    finally:
        model.load_state_dict(before)


def bits(model):
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {name: (id(each), each.numpy().tobytes()) for name, each in tensors.items()}


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    case=st.sampled_from(["olmoe", "gpt_oss", "nemotron_h", "aria_text", "deepseek_v3 grouped"]),
    kind=st.sampled_from(["constants", "mapped", "sliced"]),
)
def test_every_bit_is_restored_also_after_an_exception(seed, case, kind):
    model, layers = model_and_layers(case)
    generator = np.random.default_rng(seed)
    keep = uneven_keep(layers, generator)
    draw = constants_mask if kind == "constants" else merged_mask
    mask = draw(layers, keep, generator, *([kind] if kind != "constants" else []))
    before, logits = bits(model), logits_of(model)
    hooks = [len(layer.experts._forward_hooks) for layer in layers]

    def fail_inside():
        with masked(layers, mask):
            assert not torch.allclose(logits_of(model), logits, atol=1e-3)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_inside()
    assert bits(model) == before
    assert hooks == [len(layer.experts._forward_hooks) for layer in layers]
    assert torch.equal(logits_of(model), logits)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    case=st.sampled_from(["olmoe", "gpt_oss", "nemotron_h", "ernie4_5_moe", "mixtral"]),
    kind=st.sampled_from(["plain", "constants", "mapped", "sliced"]),
    data=st.data(),
)
def test_any_number_from_one_to_all_experts_may_be_kept(seed, case, kind, data):
    _, layers = model_and_layers(case)
    generator = np.random.default_rng(seed)
    keep = np.zeros((len(layers), layers[0].num_experts), dtype=bool)
    # Nemotron-H's router rates groups by their two best experts.
    fewest = 2 if case == "nemotron_h" else 1
    for row in keep:
        row[generator.permutation(len(row))[: data.draw(st.integers(fewest, len(row)))]] = True
    if kind == "plain":
        mask, by_hand = ExpertMask(keep), unevenly_sliced_by_hand(case, keep)
    elif kind == "constants":
        mask = constants_mask(layers, keep, generator)
        by_hand = with_constants_by_hand(case, keep, mask.stand_in.outputs)
    else:
        mask = merged_mask(layers, keep, generator, kind, data.draw(st.booleans()))
        merged, whole = mask.stand_in, kind == "mapped"
        state = merged_by_hand(case, merged.into, merged.weights, merged.neurons, whole)
        by_hand = unevenly_sliced_by_hand(case, keep | whole, state)
    expected = logits_of(by_hand)
    close(logits_under(case, mask), expected)
    model, layers = model_and_layers(case)
    close(logits_of(prune(model, layers, mask)), expected)


@pytest.mark.parametrize("kind", ["constants", "mapped"])
def test_tokens_of_dropped_experts_go_to_what_stands_in_alone(kind):
    model, layers = model_and_layers("olmoe")
    generator = np.random.default_rng(7)
    keep = random_keep(layers, 1)
    draw = constants_mask if kind == "constants" else merged_mask
    reached = set()

    def watch(experts, hidden, index, weights):
        number = [layer.experts for layer in layers].index(experts)
        reached.update((number, each) for each in index.flatten().tolist())
        return sorted_loop(experts, hidden, index, weights)

    with masked(layers, draw(layers, keep, generator)), experts_function(layers, watch):
        logits_of(model)
    assert reached == {(layer, expert) for layer, expert in np.argwhere(keep).tolist()}


def test_a_sum_beyond_the_dtype_is_refused_and_what_was_merged_before_is_undone():
    model = copy.deepcopy(model_and_layers("olmoe")[0]).half()
    layers = find_moe_layers(model)
    generator = np.random.default_rng(8)
    mask = merged_mask(layers, random_keep(layers, 4), generator)
    mask.stand_in.weights[1] *= 1e6
    before = bits(model)
    with (
        pytest.raises(UnsupportedModel, match=r"layers\.1\.mlp.*not finite in torch.float16"),
        masked(layers, mask),
    ):
        pass
    assert bits(model) == before
    with masked(layers, random_keep(layers, 4)):
        pass


def test_what_cannot_be_replaced_is_refused_by_name():
    model, layers = model_and_layers("olmoe")
    generator = np.random.default_rng(9)
    keep = random_keep(layers, 4)
    merged = merged_mask(layers, keep, generator).stand_in
    odd = [
        (
            Merged(merged.into, merged.weights, merged.neurons[:, :, :3] * 0 + np.arange(3)),
            "orders 3",
        ),
        (Constants(np.zeros((*keep.shape, 5), np.float32)), "constants have 5 numbers"),
    ]
    for stand_in, message in odd:
        with pytest.raises(UnsupportedModel, match=message):
            masked(layers, ExpertMask(keep, (), stand_in)).__enter__()
        with pytest.raises(UnsupportedModel, match=message):
            prune(model, layers, ExpertMask(keep, (), stand_in))
    with pytest.raises(ValueError, match="must be itself, as it is kept"):
        masked(layers, ExpertMask(np.roll(keep, 1, axis=1), (), merged)).__enter__()


def test_experts_whose_neurons_are_not_understood_are_not_aligned():
    model = copy.deepcopy(model_and_layers("olmoe")[0])
    layers = find_moe_layers(model)
    generator = np.random.default_rng(10)
    mask = merged_mask(layers, random_keep(layers, 4), generator)
    for layer in layers:
        # A gate that mixes neurons, as no family of transformers has it.
        layer.experts._apply_gate = lambda both: both.chunk(2, -1)[0].cumsum(-1)
    with pytest.raises(UnsupportedModel, match="inner neurons in another order"):
        masked(layers, mask).__enter__()
    stand_in = dataclasses.replace(mask.stand_in, neurons=None)
    with masked(layers, dataclasses.replace(mask, stand_in=stand_in)):
        logits_of(model)
