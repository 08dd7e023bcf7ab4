"""Masks that share their lower layers give, bit for bit, what each gives alone."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from accelerate import cpu_offload
from accelerate.hooks import AlignDevicesHook, add_hook_to_module

from helpers import tiny_models
from helpers.drawn_masks import constants_mask, merged_mask
from helpers.family_cases import CASES, IDS, model_and_layers, random_keep
from mbench.core.interfaces import ExpertMask
from mbench.moe.adapter import find_moe_layers
from mbench.moe.mask import masked
from mbench.moe.offload import settle
from mbench.moe.prefix import SharedPrefix


def body_of(model):
    return lambda ids: model.base_model(input_ids=ids, use_cache=False).last_hidden_state


def masks_of(layers, seed=0):
    """Six distinct masks, of which some begin alike."""
    one, other = (random_keep(layers, layers[0].num_experts // 2, seed + n) for n in (0, 1))
    full = np.ones_like(one)
    masks = [full, one, other]
    for above in (one, other, full):
        mixed = one.copy()
        mixed[-1] = above[-1]
        masks.append(mixed)
    distinct = {mask.tobytes(): mask for mask in masks}
    return [ExpertMask(mask) for mask in distinct.values()]


def alone(model, layers, mask, router="sliced"):
    with masked(layers, mask, router), torch.no_grad():
        return body_of(model)(IDS)


def state_of(model):
    return [
        (type(module), sorted(vars(module)), len(module._forward_hooks), module.forward)
        for module in model.modules()
    ]


@pytest.mark.parametrize("case", CASES)
def test_sharing_changes_no_bit_in_any_family(case):
    model, layers = model_and_layers(case)
    masks = masks_of(layers)
    before = state_of(model)
    outputs = dict(SharedPrefix(model, layers).run(body_of(model), IDS, masks, "sliced"))
    assert state_of(model) == before
    assert sorted(outputs) == list(range(len(masks)))
    for number, mask in enumerate(masks):
        assert torch.equal(outputs[number], alone(model, layers, mask))


def calls_of(model, layers, masks, **options):
    """How often each MoE layer computed its experts on all tokens, and the outputs."""
    calls = [0] * len(layers)

    def counting(number):
        def hook(module, args, output):
            calls[number] += len(args[0]) == IDS.numel()

        return hook

    handles = [
        layer.experts.register_forward_hook(counting(number)) for number, layer in enumerate(layers)
    ]
    prefix = SharedPrefix(model, layers, **options)
    outputs = dict(prefix.run(body_of(model), IDS, masks, "preserved"))
    for handle in handles:
        handle.remove()
    return calls, outputs


def test_each_distinct_beginning_is_computed_once():
    model = tiny_models.qwen3_moe(num_hidden_layers=5)
    layers = find_moe_layers(model)
    generator = np.random.default_rng(3)
    choices = [random_keep(layers, 4, seed) for seed in (0, 1)]
    keeps = {}
    for _ in range(12):
        rows = [choices[generator.integers(2)][layer] for layer in range(5)]
        keeps[np.stack(rows).tobytes()] = np.stack(rows)
    masks = [ExpertMask(keep) for keep in keeps.values()]
    calls, outputs = calls_of(model, layers, masks)
    assert calls == [len({m.keep[: n + 1].tobytes() for m in masks}) for n in range(5)]
    unshared, _ = calls_of(model, layers, masks, share=False)
    assert unshared == [len(masks)] * 5
    for number, mask in enumerate(masks):
        assert torch.equal(outputs[number], alone(model, layers, mask, "preserved"))


def test_what_stands_in_counts_layer_by_layer():
    model = tiny_models.qwen3_moe(num_hidden_layers=4)
    layers = find_moe_layers(model)
    generator = np.random.default_rng(4)
    keep = random_keep(layers, 4)
    masks = [ExpertMask(keep)]
    for drawn in (constants_mask, merged_mask, merged_mask):
        mask = drawn(layers, keep, generator)
        values = vars(mask.stand_in)
        of_last = next(name for name in ("outputs", "weights") if name in values)
        other = values[of_last].copy()
        other[-1] *= 2
        changed = dataclasses.replace(mask.stand_in, **{of_last: other})
        masks += [mask, ExpertMask(keep, (), changed)]
    calls, outputs = calls_of(model, layers, masks)
    # Three pairs differ in the last layer alone.
    assert calls == [4, 4, 4, 7]
    for number, mask in enumerate(masks):
        assert torch.equal(outputs[number], alone(model, layers, mask, "preserved"))


class Remembering(torch.nn.Module):
    """A layer that leaves something behind for the layers above it."""

    def __init__(self, layer, notes):
        super().__init__()
        self.layer, self.notes = layer, notes
        self.__dict__.update({k: v for k, v in vars(layer).items() if k == "attention_type"})

    def forward(self, hidden, *args, **kwargs):
        hidden = self.layer(hidden, *args, **kwargs)
        hidden = hidden + sum(self.notes[-1:])
        self.notes.append(hidden.mean())
        return hidden


def test_a_model_whose_layers_say_more_than_their_output_is_computed_in_full():
    model = tiny_models.qwen3_moe(num_hidden_layers=3)
    notes = []
    inner = model.base_model
    inner.layers = torch.nn.ModuleList(Remembering(layer, notes) for layer in inner.layers)
    layers = find_moe_layers(model)
    masks = masks_of(layers)

    def forward(ids):
        notes.clear()
        return body_of(model)(ids)

    outputs = dict(SharedPrefix(model, layers).run(forward, IDS, masks, "sliced"))
    for number, mask in enumerate(masks):
        with masked(layers, mask), torch.no_grad():
            assert torch.equal(outputs[number], forward(IDS))


def test_layers_whose_weights_are_elsewhere_answer_too():
    model = tiny_models.qwen2_moe(num_hidden_layers=3)
    masks = masks_of(find_moe_layers(model))
    offloaded = cpu_offload(tiny_models.qwen2_moe(num_hidden_layers=3))
    for module in offloaded.modules():  # as a device map that names whole layers does
        if type(module).__name__ == "Qwen2MoeDecoderLayer":
            add_hook_to_module(module, AlignDevicesHook(io_same_device=True))
    layers = find_moe_layers(offloaded)
    settle(offloaded, layers)
    before = state_of(offloaded)
    calls, outputs = calls_of(offloaded, layers, masks)
    assert state_of(offloaded) == before
    assert calls[0] < calls[-1] == len(masks)
    for number, mask in enumerate(masks):
        expected = alone(model, find_moe_layers(model), mask, "preserved")
        assert torch.equal(outputs[number], expected)


def test_nothing_stays_behind_when_a_pass_fails():
    model, layers = model_and_layers("qwen3_moe")
    before = state_of(model)
    calls = []

    def forward(ids):
        calls.append(len(ids))
        if len(calls) > 6:
            raise KeyboardInterrupt
        return body_of(model)(ids)

    with pytest.raises(KeyboardInterrupt):
        list(SharedPrefix(model, layers).run(forward, IDS, masks_of(layers), "sliced"))
    assert state_of(model) == before
