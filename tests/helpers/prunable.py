"""Tiny models to prune, each built once in a process, and masks of them."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from transformers import (
    DeepseekV3Config,
    DeepseekV3ForCausalLM,
    Glm4MoeConfig,
    Glm4MoeForCausalLM,
)

from helpers.tiny_models import COMMON, FAMILIES, random_sequences, randomised
from mbench.moe.adapter import find_moe_layers

IDS = torch.from_numpy(random_sequences([12, 12]).ids)
SIGMOID = {"n_routed_experts": 8, "moe_intermediate_size": 16, "intermediate_size": 48}
SIGMOID |= {"first_k_dense_replace": 1, "num_hidden_layers": 3, "n_shared_experts": 1}


def with_correction_bias(model):
    """Biases large enough to decide which experts are chosen."""
    generator = torch.Generator().manual_seed(1)
    for name, buffer in model.named_buffers():
        if name.endswith("e_score_correction_bias"):
            buffer.copy_(torch.randn(buffer.shape, generator=generator))
    return model


def deepseek_v3():
    values = {"n_group": 2, "topk_group": 1, "q_lora_rank": 8, "kv_lora_rank": 8, "v_head_dim": 8}
    values |= {"qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "num_key_value_heads": 4}
    config = DeepseekV3Config(**COMMON | SIGMOID | values)
    return with_correction_bias(randomised(DeepseekV3ForCausalLM(config)))


def glm4_moe():
    config = Glm4MoeConfig(**COMMON | SIGMOID | {"n_group": 1, "topk_group": 1, "head_dim": 8})
    return with_correction_bias(randomised(Glm4MoeForCausalLM(config)))


PRUNABLE = {**FAMILIES, "deepseek_v3": deepseek_v3, "glm4_moe": glm4_moe}


@cache
def built(family):
    model = PRUNABLE[family]()
    return model, find_moe_layers(model)


def draw(layers, kept, seed=0):
    """bool [L, 8] with `kept` experts a layer, equally many in each group of a router."""
    generator = np.random.default_rng(seed)
    keep = np.zeros((len(layers), 8), dtype=bool)
    for row, layer in zip(keep, layers, strict=True):
        for group in row.reshape(layer.groups, -1):
            group[generator.permutation(len(group))[: kept // layer.groups]] = True
    return keep
