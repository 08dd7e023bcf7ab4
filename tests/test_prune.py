"""A pruned model is smaller and computes what the masked one computes."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from tiny_models import COMMON, FAMILIES, random_sequences, randomised
from transformers import (
    DeepseekV3Config,
    DeepseekV3ForCausalLM,
    Glm4MoeConfig,
    Glm4MoeForCausalLM,
)

from mbench.core.errors import UnsupportedModel
from mbench.moe.adapter import find_moe_layers
from mbench.moe.mask import masked
from mbench.moe.prune import prune

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


@pytest.mark.parametrize("family", PRUNABLE)
@pytest.mark.parametrize("kept", [1, 2, 4, 6])
def test_a_pruned_model_computes_what_the_masked_one_does(family, kept):
    model, layers = built(family)
    if kept < 2 * layers[0].groups and family in ("deepseek_v3", "glm4_moe"):
        # A single group, too, is rated by its two best experts.
        kept = max(kept, layers[0].groups)
        with pytest.raises(UnsupportedModel, match=f"TopkRouter cannot choose among {kept} of 8"):
            prune(model, layers, draw(layers, kept))
        return
    keep = draw(layers, kept)
    whole = model(IDS).logits
    smaller = prune(model, layers, keep)
    with masked(layers, keep):
        expected = model(IDS).logits
    torch.testing.assert_close(smaller(IDS).logits, expected)
    assert not torch.allclose(expected, whole)
    assert torch.equal(model(IDS).logits, whole)
    dropped = model.num_parameters() - smaller.num_parameters()
    row = COMMON["hidden_size"]
    assert dropped == len(layers) * (8 - kept) * (3 * 16 * row + row)
    assert not any(tensor.is_meta for tensor in (*smaller.parameters(), *smaller.buffers()))


def test_a_mask_with_another_count_in_one_layer_is_refused():
    model, layers = built("olmoe")
    keep = draw(layers, 4)
    keep[1] = True
    with pytest.raises(UnsupportedModel, match="between 4 and 8 experts by layer"):
        prune(model, layers, keep)


def test_a_family_whose_configuration_does_not_count_its_experts_is_refused(monkeypatch):
    model, layers = built("mixtral")
    monkeypatch.setattr("mbench.moe.prune.EXPERT_COUNTS", ())
    message = r"MixtralForCausalLM: .* 4 experts does not give model\.layers\.0\.mlp"
    with pytest.raises(UnsupportedModel, match=message):
        prune(model, layers, draw(layers, 4))
    monkeypatch.undo()
    monkeypatch.setattr("mbench.moe.prune.TOP_K_FIELDS", ())
    with pytest.raises(UnsupportedModel, match="a token gets 2 of 2 experts"):
        prune(model, layers, draw(layers, 2))


def test_a_model_whose_weights_are_elsewhere_is_refused():
    with torch.device("meta"):
        model = FAMILIES["olmoe"]().to("meta")
    layers = find_moe_layers(model)
    with pytest.raises(UnsupportedModel, match="is not in memory"):
        prune(model, layers, draw(layers, 4))


def test_a_model_on_several_devices_is_refused(monkeypatch):
    model, layers = built("olmoe")
    placed = {"model.embed_tokens": 0, "model.layers": 0, "lm_head": 1}
    monkeypatch.setattr(model, "hf_device_map", placed, raising=False)
    with pytest.raises(UnsupportedModel, match=r"spread over devices \(0, 1\)"):
        prune(model, layers, draw(layers, 4))
