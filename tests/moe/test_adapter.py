"""Layers are found in any family, and models that would be treated wrongly are refused by name."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import (
    DeepseekV3Config,
    DeepseekV3ForCausalLM,
    JetMoeConfig,
    JetMoeForCausalLM,
    Llama4ForCausalLM,
    Llama4TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LongcatFlashConfig,
    LongcatFlashForCausalLM,
    Qwen2MoeForCausalLM,
)

from helpers.tiny_models import COMMON, FAMILIES, qwen2_moe
from mbench.core.errors import UnsupportedModel
from mbench.moe.adapter import find_moe_layers


@pytest.mark.parametrize("family", FAMILIES)
def test_layers_are_found_in_model_order(family):
    layers = find_moe_layers(FAMILIES[family]())
    assert [layer.path for layer in layers] == [f"model.layers.{i}.mlp.experts" for i in range(2)]
    for layer in layers:
        assert (layer.num_experts, layer.top_k, layer.groups) == (8, 3, 1)
        assert layer.block.gate is layer.router
        assert [(each.attribute, each.dim) for each in layer.router_tensors] == [("weight", 0)]
        assert layer.expert_tensors == ("gate_up_proj", "down_proj")


def test_dense_layers_of_a_mixed_model_are_passed_over():
    model = qwen2_moe(num_hidden_layers=3, mlp_only_layers=[1])
    paths = [layer.path for layer in find_moe_layers(model)]
    assert paths == ["model.layers.0.mlp.experts", "model.layers.2.mlp.experts"]


def test_layers_are_found_without_weights():
    config = qwen2_moe().config
    with torch.device("meta"):
        model = Qwen2MoeForCausalLM(config)
    assert len(find_moe_layers(model)) == 2


def test_correction_bias_is_found_with_the_router():
    config = DeepseekV3Config(
        **COMMON | {"num_hidden_layers": 1, "num_key_value_heads": 4, "first_k_dense_replace": 0},
        n_routed_experts=8,
        n_group=2,
        topk_group=1,
        intermediate_size=16,
        moe_intermediate_size=16,
        q_lora_rank=8,
        kv_lora_rank=8,
        qk_rope_head_dim=8,
        qk_nope_head_dim=8,
        v_head_dim=8,
    )
    with torch.device("meta"):
        (layer,) = find_moe_layers(DeepseekV3ForCausalLM(config))
    attributes = {each.attribute for each in layer.router_tensors}
    assert attributes == {"weight", "e_score_correction_bias"}
    assert (layer.groups, layer.groups_used) == (2, 1)
    assert layer.top_k_with(4) == 2


def llama():
    return LlamaForCausalLM(LlamaConfig(**SMALL, intermediate_size=32))


def jetmoe():
    return JetMoeForCausalLM(
        JetMoeConfig(**SMALL, num_local_experts=4, kv_channels=8, intermediate_size=16)
    )


def llama4():
    values = {"intermediate_size": 16, "intermediate_size_mlp": 16, "num_local_experts": 4}
    return Llama4ForCausalLM(Llama4TextConfig(**SMALL, **values, head_dim=8))


def longcat():
    values = {"ffn_hidden_size": 16, "expert_ffn_hidden_size": 16, "n_routed_experts": 4}
    ranks = {"q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8}
    changes = {"num_layers": 1, "num_attention_heads": 4, "head_dim": 8, "v_head_dim": 8}
    common = {key: SMALL[key] for key in ("vocab_size", "hidden_size")}
    return LongcatFlashForCausalLM(LongcatFlashConfig(**common, **values, **ranks, **changes))


def hash_routed():
    model = qwen2_moe()
    model.model.layers[0].mlp.gate.tid2eid = torch.zeros(64, 3)
    return model


def extra_classes():
    model = qwen2_moe()
    model.model.layers[1].mlp.gate.weight = nn.Parameter(torch.zeros(10, 32))
    return model


def uneven():
    model = qwen2_moe()
    model.model.layers[1].mlp = qwen2_moe(num_experts=6).model.layers[1].mlp
    return model


def list_of_experts():
    model = qwen2_moe()
    block = nn.Module()
    block.experts = nn.ModuleList(nn.Linear(32, 32) for _ in range(8))
    model.model.layers[1].mlp = block
    return model


def two_routers():
    model = qwen2_moe()
    model.model.layers[0].mlp.second_gate = qwen2_moe().model.layers[0].mlp.gate
    return model


def square_router():
    model = qwen2_moe(num_experts=32)
    model.model.layers[0].mlp.gate.bias = nn.Parameter(torch.zeros(32))
    return model


SMALL = {
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
}


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (llama, "LlamaForCausalLM is not a Mixture-of-Experts model"),
        (jetmoe, "JetMoeParallelExperts.* does not use the experts interface"),
        (llama4, "Llama4Text.* does not use the experts interface"),
        (longcat, "LongcatFlashExperts.* does not use the experts interface"),
        (hash_routed, "layers.0.mlp.experts is routed by a table"),
        (extra_classes, "layers.1.mlp.experts: the router also scores classes"),
        (uneven, r"num_experts differs between layers \(\[6, 8\]\)"),
        (list_of_experts, "layers.1.mlp.experts .ModuleList. does not use the experts interface"),
        (two_routers, "layers.0.mlp.experts: 2 modules .* look like its router"),
        (square_router, "as many experts as hidden dimensions"),
    ],
)
def test_what_cannot_be_treated_is_refused_by_name(build, reason):
    with torch.device("meta"):
        model = build()
    with pytest.raises(UnsupportedModel, match=reason) as caught:
        find_moe_layers(model)
    assert "\n" not in str(caught.value)
    assert type(model).__name__ in str(caught.value)
