"""A masked model is the physically sliced model, and nothing of the mask stays behind."""

from __future__ import annotations

import copy
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import DeepseekV3Config, DeepseekV3ForCausalLM, PhimoeConfig, PhimoeForCausalLM

from helpers.tiny_models import COMMON, FAMILIES, qwen2_moe, random_sequences
from mbench.core.errors import UnsupportedModel
from mbench.core.interfaces import ExpertMask
from mbench.moe.adapter import find_moe_layers
from mbench.moe.experts import experts_function, fast_experts, sorted_loop
from mbench.moe.mask import checked, masked

IDS = torch.from_numpy(random_sequences([12, 12, 12]).ids)
NOT_RENORMALISED = ("qwen2_moe", "olmoe")


@cache
def model_and_layers(family):
    model = FAMILIES[family]()
    return model, find_moe_layers(model)


def sliced_by_hand(model, keep):
    """A smaller stock model that gets the retained experts' weights from the state dict."""
    config = copy.deepcopy(model.config)
    kept = int(keep[0].sum())
    count = "num_local_experts" if model.config.model_type == "mixtral" else "num_experts"
    setattr(config, count, kept)
    config.num_experts_per_tok = min(config.num_experts_per_tok, kept)
    state = dict(model.state_dict())
    for layer, row in enumerate(keep):
        for name in ("gate.weight", "experts.gate_up_proj", "experts.down_proj"):
            key = f"model.layers.{layer}.mlp.{name}"
            state[key] = state[key][torch.from_numpy(np.flatnonzero(row))]
    smaller = type(model)(config)
    smaller.load_state_dict(state)
    return smaller.eval().requires_grad_(False)


def random_keep(seed, kept, layers=2, experts=8):
    generator = np.random.default_rng(seed)
    keep = np.zeros((layers, experts), dtype=bool)
    for row in keep:
        row[generator.permutation(experts)[:kept]] = True
    return keep


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**32), kept=st.integers(1, 7))
def test_masked_equals_physically_sliced(family, seed, kept):
    model, layers = model_and_layers(family)
    keep = random_keep(seed, kept)
    with masked(layers, keep):
        logits = model(IDS).logits
    torch.testing.assert_close(logits, sliced_by_hand(model, keep)(IDS).logits)


def route_preserved(router, keep, renormalise):
    """An independent float64 router: gates from all experts, choice among the retained ones."""
    weight = router.weight.double()
    dropped = torch.from_numpy(~keep)

    def forward(hidden):
        logits = hidden.reshape(-1, hidden.shape[-1]).double() @ weight.T
        probability = logits.exp() / logits.exp().sum(dim=1, keepdim=True)
        top_k = min(router.top_k, int(keep.sum()))
        index = probability.masked_fill(dropped, -1.0).argsort(dim=1, descending=True)[:, :top_k]
        gates = probability.gather(1, index)
        if renormalise:
            gates = gates / gates.sum(dim=1, keepdim=True)
        return logits.float(), gates.float(), index

    return forward


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kept", [1, 2, 4, 7])
def test_preserved_gates_match_an_independent_router(family, kept):
    model, layers = model_and_layers(family)
    keep = random_keep(kept, kept)
    with masked(layers, keep, "preserved"):
        logits = model(IDS).logits
    oracle = copy.deepcopy(model)
    for layer, row in zip(find_moe_layers(oracle), keep, strict=True):
        layer.router.forward = route_preserved(layer.router, row, family not in NOT_RENORMALISED)
    torch.testing.assert_close(logits, oracle(IDS).logits, rtol=1e-4, atol=1e-4)
    with masked(layers, keep, "sliced"):
        same = torch.equal(logits, model(IDS).logits)
    assert same == (family not in NOT_RENORMALISED)


def test_gates_of_a_router_that_is_sure_are_still_told_apart():
    model = qwen2_moe(norm_topk_prob=True)
    layers = find_moe_layers(model)
    for layer in layers:
        layer.router.weight.mul_(100)
    keep = random_keep(0, 4)
    with masked(layers, keep, "preserved"):
        preserved = model(IDS).logits
    with masked(layers, keep, "sliced"):
        assert torch.equal(preserved, model(IDS).logits)


@pytest.mark.parametrize("router", ["sliced", "preserved"])
@pytest.mark.parametrize("family", FAMILIES)
def test_keeping_everything_changes_no_bit(family, router):
    model, layers = model_and_layers(family)
    with masked(layers, ExpertMask(np.ones((2, 8), dtype=bool)), router):
        inside = model(IDS).logits
    assert torch.equal(inside, model(IDS).logits)


@pytest.mark.parametrize("router", ["sliced", "preserved"])
def test_no_token_reaches_a_dropped_expert(router):
    model, layers = model_and_layers("olmoe")
    keep = random_keep(1, 3)
    reached = {layer.experts: set() for layer in layers}

    def watch(experts, hidden, index, weights):
        reached[experts].update(index.flatten().tolist())
        return sorted_loop(experts, hidden, index, weights)

    with masked(layers, keep, router), experts_function(layers, watch):
        model(IDS)
    for layer, row in zip(layers, keep, strict=True):
        assert reached[layer.experts]
        assert reached[layer.experts] <= set(np.flatnonzero(row).tolist())


def snapshot(model):
    modules = [(type(m), set(vars(m)), len(m._forward_hooks)) for m in model.modules()]
    pre_hooks = [len(m._forward_pre_hooks) for m in model.modules()]
    return modules, pre_hooks, {name: id(each) for name, each in model.named_parameters()}


@pytest.mark.parametrize("router", ["sliced", "preserved"])
def test_the_model_is_restored_even_after_an_exception(router):
    model, layers = model_and_layers("qwen2_moe")
    before, logits = snapshot(model), model(IDS).logits

    def fail_under_the_mask():
        with masked(layers, random_keep(2, 2), router):
            model(IDS)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_under_the_mask()
    assert snapshot(model) == before
    assert (layers[0].router.top_k, layers[0].router.num_experts) == (3, 8)
    assert torch.equal(model(IDS).logits, logits)


def test_masks_do_not_nest_and_the_outer_one_stays():
    model, layers = model_and_layers("mixtral")
    with masked(layers, random_keep(3, 4)):
        logits = model(IDS).logits
        with pytest.raises(RuntimeError, match="do not nest"), masked(layers, random_keep(4, 4)):
            pass
        assert torch.equal(model(IDS).logits, logits)


@pytest.mark.parametrize(
    "keep", [np.ones((2, 7), dtype=bool), np.ones((2, 8)), np.zeros((2, 8), dtype=bool)]
)
def test_malformed_masks_are_refused(keep):
    _, layers = model_and_layers("olmoe")
    with pytest.raises(ValueError, match="a mask must"), masked(layers, keep):
        pass


def test_group_limited_routers_need_even_groups():
    values = {"n_routed_experts": 8, "n_group": 2, "topk_group": 1, "moe_intermediate_size": 16}
    values |= {"q_lora_rank": 8, "kv_lora_rank": 8, "v_head_dim": 8, "intermediate_size": 16}
    values |= {"qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "first_k_dense_replace": 0}
    config = DeepseekV3Config(**COMMON | {"num_key_value_heads": 4} | values)
    with torch.device("meta"):
        layers = find_moe_layers(DeepseekV3ForCausalLM(config))
    keep = np.array([[True] * 3 + [False] + [True] + [False] * 3] * 2)
    with pytest.raises(UnsupportedModel, match=r"2 groups.*\[3, 1\]"):
        checked(layers, keep)
    # A meta model, as an export has it, is tried all the same.
    keep = np.array([[True] + [False] * 3] * 2).repeat(2, axis=0).reshape(2, 8)
    with pytest.raises(UnsupportedModel, match="DeepseekV3TopkRouter cannot choose among 2 of 8"):
        checked(layers, keep)


def test_preserved_gates_are_refused_where_k_is_fixed():
    values = {"num_local_experts": 8, "intermediate_size": 16, "num_experts_per_tok": 2}
    model = PhimoeForCausalLM(PhimoeConfig(**COMMON | values)).eval()
    layers = find_moe_layers(model)
    message = r"layers.0.*PhimoeTopKRouter cannot"
    with (
        torch.no_grad(),
        pytest.raises(UnsupportedModel, match=message),
        masked(layers, random_keep(0, 4), "preserved"),
    ):
        model(IDS)


@pytest.mark.parametrize("family", FAMILIES)
def test_fast_experts_equal_the_stock_ones(family):
    model, layers = model_and_layers(family)
    with fast_experts(layers):
        fast = model(IDS).logits
    torch.testing.assert_close(fast, model(IDS).logits)
