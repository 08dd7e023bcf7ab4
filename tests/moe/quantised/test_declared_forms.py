"""What settings declare of packed forms: whom they concern, and how they are told in words."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from helpers.packed_forms import ct_settings
from helpers.packed_numbers import (
    DTYPES,
    bytes_,
    decoded,
    e4m3,
    source,
)
from mbench.core.errors import UnsupportedModel
from mbench.moe.quantised.forms import form_of
from mbench.moe.quantised.reader import StoredWeights


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_plain_weight_beside_scales_that_do_not_concern_it_is_itself(dtype):
    weight = torch.randn(3, 5, generator=source(0)).to(dtype)
    for declared, name in (
        (ct_settings("float-quantized", type="float"), "input_scale"),
        ({"quant_method": "modelopt", "quant_algo": "FP8"}, "k_scale"),
    ):
        found = decoded(declared, {"weight": weight, name: torch.ones(1)})
        assert torch.equal(found, weight.float())


def test_scales_of_the_cache_belong_to_the_layers_they_come_from():
    form = form_of(ct_settings("float-quantized", type="float"))
    for name in ("self_attn.k_scale", "self_attn.k_proj.k_scale"):
        part = form.part(f"model.layers.3.{name}")
        assert (part.weight, part.role) == ("model.layers.3.self_attn.k_proj.weight", "k_scale")


def test_layers_of_modelopt_may_have_algorithms_of_their_own():
    layers = {"layers.0.attn.q_proj": "FP8", "layers.0.mlp.experts": "NVFP4", "layers.0": "MXFP8"}
    declared = {"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION"}
    declared["quantized_layers"] = {name: {"quant_algo": each} for name, each in layers.items()}
    form = form_of(declared)
    assert form.words == "FP8 per tensor and MXFP8 and NVFP4 (modelopt)"
    whole = {"weight": e4m3((4, 32), 0)}
    of_layer = {
        "attn.q_proj": ("FP8", whole | {"weight_scale": torch.tensor(0.3)}),
        "attn.o_proj": ("MXFP8", whole | {"weight_scale": bytes_((4, 1), 1).clamp(max=254)}),
        "mlp.experts.1.up": (
            "NVFP4",
            {"weight": bytes_((4, 16), 2), "weight_scale": e4m3((4, 2), 3)}
            | {"weight_scale_2": torch.tensor(0.7)},
        ),
    }
    for layer, (algorithm, parts) in of_layer.items():
        alone = form_of({"quant_method": "modelopt", "quant_algo": algorithm})
        found = form.decode(f"layers.0.{layer}.weight", parts)
        assert torch.equal(found, alone.decode("weight", parts))
    with pytest.raises(UnsupportedModel, match="names neither this layer nor a module around it"):
        form.decode("layers.01.attn.q_proj.weight", of_layer["attn.q_proj"][1])


def test_a_scale_of_the_cache_makes_no_weight(tmp_path):
    plain, alone = "layers.0.kv_b_proj.weight", "layers.0.k_proj.k_scale"
    tensors = {plain: torch.ones(2, 2), alone: torch.ones(1)}
    save_file(tensors, tmp_path / "model.safetensors")
    form = form_of({"quant_method": "modelopt", "quant_algo": "NVFP4"})
    weights = StoredWeights([tmp_path / "model.safetensors"], form)
    assert list(weights.parts) == [plain]
    assert set(weights.tensors) == set(tensors)


def test_older_names_of_settings_are_known():
    awq = {"quant_method": "awq", "w_bit": 4, "q_group_size": 32, "zero_point": True}
    assert form_of(awq).words == "int4 in groups of 32 (AWQ)"
    modelopt = {"producer": {"name": "modelopt", "version": "0.31"}, "quant_algo": "FP8"}
    assert form_of(modelopt).words == "FP8 per tensor (modelopt)"


GROUP = {"strategy": "group", "group_size": 128, "num_bits": 4}


STATIC = {"num_bits": 8, "type": "float", "strategy": "tensor"}


BNB = {"quant_method": "bitsandbytes"}


@pytest.mark.parametrize(
    ("declared", "words", "activations"),
    [
        (ct_settings("pack-quantized", **GROUP), "int4 in groups of 128 (compressed-tensors)", ""),
        (ct_settings("int-quantized"), "int8 per tensor (compressed-tensors)", ""),
        (
            ct_settings("float-quantized", type="float", strategy="channel")
            | {"kv_cache_scheme": STATIC},
            "FP8 per channel (compressed-tensors)",
            "cache of keys and values in FP8",
        ),
        (
            ct_settings(
                "float-quantized", type="float", strategy="block", block_structure=[128, 64]
            ),
            "FP8 128x64 (compressed-tensors)",
            "",
        ),
        (
            {"quant_method": "modelopt", "quant_algo": "NVFP4", "kv_cache_quant_algo": "FP8"},
            "NVFP4 (modelopt)",
            "FP4 in groups of 16; cache of keys and values in FP8",
        ),
        (
            {"quant_method": "gptq", "bits": 4, "group_size": -1},
            "int4 per channel (GPTQ)",
            "",
        ),
        ({"quant_method": "awq", "bits": 4, "group_size": 64}, "int4 in groups of 64 (AWQ)", ""),
        (BNB | {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}, "nf4 (bitsandbytes)", ""),
        (
            BNB | {"load_in_8bit": True},
            "int8 per channel (bitsandbytes)",
            "int8 per token, but columns with values from 6 on in 16 bits",
        ),
    ],
)
def test_forms_are_told_in_words(declared, words, activations):
    form = form_of(declared)
    assert (form.words, form.activations) == (words, activations)
