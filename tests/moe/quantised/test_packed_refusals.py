"""What packed forms refuse: settings that are not understood, and parts that contradict them."""

from __future__ import annotations

import contextlib
import json

import pytest
import torch

from helpers.packed_forms import MAPS, ct_settings
from helpers.quantised_checkpoints import KINDS
from mbench.core.errors import UnsupportedModel
from mbench.moe.quantised.forms import form_of

GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 8, "sym": False}
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 8, "version": "gemm"}
NVFP4 = {"quant_method": "modelopt", "quant_algo": "NVFP4"}
BNB = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
FLOATS = ct_settings("float-quantized", type="float", strategy="channel")
PACKED = ct_settings("pack-quantized", num_bits=4, strategy="group", group_size=8)
ASYMMETRIC = ct_settings("int-quantized", strategy="channel", symmetric=False)
FP4 = {"type": "float", "num_bits": 4, "strategy": "tensor_group", "group_size": 16}
FP4 = ct_settings("nvfp4-pack-quantized", **FP4)
BLOCKS = {"type": "float", "strategy": "block", "block_structure": [4, 4]}
BLOCKS = ct_settings("float-quantized", **BLOCKS)
OTHER_GROUP = {"weights": {"type": "int", "num_bits": 4, "strategy": "group", "group_size": 32}}


def groups(*others, **changes):
    """Several config groups."""
    groups = {**FLOATS["config_groups"], **{f"group_{i + 1}": g for i, g in enumerate(others)}}
    return FLOATS | {"config_groups": groups} | changes


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        (GPTQ | {"bits": 3}, r"with bits 3 are not read \(read: 2, 4, 8\)"),
        ({"quant_method": "gptq"}, "with bits None are not read"),
        (GPTQ | {"checkpoint_format": "marlin"}, "with checkpoint_format 'marlin' are not read"),
        (GPTQ | {"checkpoint_format": "gptq", "format": "gptq_v2"}, "two different formats"),
        (GPTQ | {"pack_dtype": "int64"}, "with pack_dtype 'int64' are not read"),
        (GPTQ | {"group_size": 0}, "with group_size 0: it must be -1 or above 0"),
        (GPTQ | {"dynamic": {"-:.*gate$": {}, r"+:.*\.q_proj": {"bits": 8}}}, "other settings for"),
        (GPTQ | {"rotation": "hadamard"}, "with rotation 'hadamard' are not read"),
        (GPTQ | {"new": 1}, "its setting 'new' is not known"),
        (AWQ | {"version": "gemv"}, "with version 'gemv' are not read"),
        (AWQ | {"bits": 8}, "with bits 8 are not read"),
        (AWQ | {"backend": "llm-awq"}, "with backend 'llm-awq' are not read"),
        (AWQ | {"zero_point": True, "sym": True}, "sym and zero_point contradict each other"),
        (NVFP4 | {"quant_algo": "W4A8_AWQ"}, "with quant_algo 'W4A8_AWQ' are not read"),
        (NVFP4 | {"quant_algo": "INT4_AWQ"}, "with quant_algo 'INT4_AWQ' are not read"),
        ({"quant_method": "modelopt"}, "with quant_algo None are not read"),
        (NVFP4 | {"group_size": 32}, "in NVFP4 in groups of 32 are not read"),
        (NVFP4 | {"quant_algo": "MIXED_PRECISION"}, "in MIXED_PRECISION, but in no layer"),
        (
            NVFP4
            | {"quant_algo": "MIXED_PRECISION", "quantized_layers": {"a": {"quant_algo": "W8A16"}}},
            "with quant_algo 'W8A16' are not read",
        ),
        (NVFP4 | {"quant_algo": "MXFP8", "group_size": 16}, "in MXFP8 in groups of 16 are not"),
        (NVFP4 | {"lora_rank": 8}, "its setting 'lora_rank' is not known"),
        (BNB | {"load_in_4bit": False}, "load_in_4bit or load_in_8bit must be true"),
        (BNB | {"bnb_4bit_quant_type": "int4"}, "with bnb_4bit_quant_type 'int4' are not read"),
        (BNB | {"llm_int8_has_fp16_weight": True}, "with llm_int8_has_fp16_weight True"),
        (FLOATS | {"format": "marlin-24"}, r"with format 'marlin-24' are not read \(read: float-"),
        (FLOATS | {"format": "dense"}, "with format 'dense' are not read"),
        (FLOATS | {"quantization_status": "initialized"}, "quantization_status 'initialized'"),
        (FLOATS | {"transform_config": {"config_groups": {}}}, "with transform_config .* not read"),
        (FLOATS | {"sparsity_config": {"format": "sparse-24-bitmask"}}, "as 'sparse-24-bitmask'"),
        (FLOATS | {"config_groups": {}}, "no config group has weights"),
        (FLOATS | {"config_groups": {"FP8_DYNAMIC": ["Linear"]}}, "it must be an object"),
        (groups(OTHER_GROUP | {"format": "pack-quantized"}), "2 config groups with different"),
        (groups(OTHER_GROUP, format="mixed-precision"), "format 'mixed-precision' are not read"),
        (
            ct_settings("pack-quantized", num_bits=3, strategy="group", group_size=8),
            r"with num_bits 3 are not read \(read: 4, 8\)",
        ),
        (
            ct_settings("pack-quantized", num_bits=4, strategy="tensor", symmetric=False),
            r"with strategy 'tensor' are not read \(read: channel, group\)",
        ),
        (
            ct_settings("float-quantized", type="float", strategy="channel", symmetric=False),
            "with symmetric False are not read",
        ),
        (ct_settings("int-quantized", strategy="token"), "with strategy 'token' are not read"),
        (ct_settings("int-quantized", dynamic=True), "with dynamic True are not read"),
        (ct_settings("int-quantized", rotated=True), "its setting 'rotated' is not known"),
        (
            ct_settings("float-quantized", type="float", strategy="block", block_structure=[4]),
            r"a scale for each \[4\] are not read",
        ),
        (ct_settings("int-quantized", strategy="group", group_size=0), r"each \[1, 0\] are not"),
        (
            ct_settings(
                "nvfp4-pack-quantized",
                **{"type": "float", "num_bits": 4, "strategy": "tensor_group", "group_size": 32},
            ),
            "with group_size 32 are not read",
        ),
    ],
)
def test_settings_that_are_not_understood_are_refused_by_name(declared, message):
    with pytest.raises(UnsupportedModel, match=message) as caught:
        form_of(declared)
    assert str(caught.value).startswith(f"weights stored by '{declared['quant_method']}")


ODD = (None, 0, -1, 1.5, "x", "", [], [1], ["a"], {}, {"a": 1}, {"a": {}}, True, False)
MORE = {
    **{"sparsity_config": {"format": "dense"}, "kv_cache_scheme": {"num_bits": 8}},
    **{"config_groups": {"group_0": {"weights": {"group_size": 16}, "input_activations": {}}}},
    **{"quantized_layers": {"a": {"quant_algo": "FP8", "group_size": 16}}, "dynamic": {"-:a": {}}},
    **{"quantization": {"quant_algo": "NVFP4"}, "llm_int8_threshold": 6.0, "producer": {}},
}


def places(settings):
    """The keys that lead to each value of nested settings."""
    for key, value in settings.items() if isinstance(settings, dict) else ():
        yield (key,)
        yield from ((key, *inner) for inner in places(value))


def put(settings, place, value):
    if not place:
        return value
    return settings | {place[0]: put(settings[place[0]], place[1:], value)}


@pytest.mark.parametrize("kind", KINDS)
def test_settings_of_any_type_are_read_or_refused(kind):
    settings = dict(KINDS[kind].settings)
    for name, value in MORE.items():
        more = settings | {name: settings.get(name, value)}
        for place in places(more):
            for odd in ODD if place != ("quant_method",) else ():
                with contextlib.suppress(UnsupportedModel):
                    form = form_of(put(more, place, odd))
                    assert form.words
                    assert isinstance(form.activations, str)


@pytest.mark.parametrize(
    "declared",
    [
        groups(FLOATS["config_groups"]["group_0"], format="mixed-precision"),
        groups({"weights": None, "targets": ["Attention"]}),
        GPTQ | {"dynamic": {"-:.*mlp.gate$": {}}, "meta": {"quantizer": ["gptqmodel:2.2.0"]}},
        FLOATS | {"sparsity_config": {"format": "dense", "global_sparsity": 0.1}},
        FLOATS | {"quantization_status": "frozen", "transform_config": {}},
    ],
)
def test_settings_that_change_no_number_are_read(declared):
    declared["config_groups"] = {
        name: {"format": "float-quantized"} | group
        for name, group in declared.get("config_groups", {}).items()
    } or None
    declared = {name: value for name, value in declared.items() if value is not None}
    assert form_of(declared).words


def ints(*shape, fill=0):
    return torch.full(shape, fill, dtype=torch.int32)


def changed(parts, **changes):
    parts = parts | {name.replace("__", "."): part for name, part in changes.items()}
    return {name: part for name, part in parts.items() if part is not None}


def gptq(**changes):
    """16 inputs in two groups, 8 outputs."""
    parts = {"qweight": ints(2, 8), "qzeros": ints(2, 1), "scales": torch.ones(2, 8).half()}
    return changed(parts | {"g_idx": torch.arange(16).int() // 8}, **changes)


def awq(**changes):
    parts = {"qweight": ints(16, 1), "qzeros": ints(2, 1), "scales": torch.ones(2, 8).half()}
    return changed(parts, **changes)


def floats(dtype=torch.float8_e4m3fn, shape=(4, 6), **changes):
    return changed(
        {"weight": torch.ones(shape).to(dtype), "weight_scale": torch.ones(4, 1)}, **changes
    )


def packed(**changes):
    """16 columns in two groups."""
    parts = {"weight_packed": ints(4, 2), "weight_scale": torch.ones(4, 2)}
    return changed(parts | {"weight_shape": torch.tensor([4, 16])}, **changes)


def fp4(first="weight_packed", of_all="weight_global_scale", **changes):
    """32 columns in two groups."""
    parts = {first: torch.ones(4, 16).byte(), "weight_scale": torch.ones(4, 2)}
    parts["weight_scale"] = parts["weight_scale"].to(torch.float8_e4m3fn)
    return changed(parts | {of_all: torch.ones(())}, **changes)


def nvfp4(**changes):
    return fp4("weight", "weight_scale_2", **changes)


def bnb(state=None, **changes):
    """4 rows of 8, in two blocks of 16."""
    state = {"quant_type": "nf4", "blocksize": 16, "shape": [4, 8]} | (state or {})
    written = torch.tensor(list(json.dumps(state).encode()), dtype=torch.uint8)
    parts = {"weight": torch.ones(16, 1).byte(), "absmax": torch.ones(2)}
    return changed(parts | {"quant_map": MAPS["nf4"], "quant_state": written}, **changes)


NESTED = {"nested_absmax": torch.ones(1), "nested_quant_map": torch.ones(256)}
NESTED |= {"absmax": torch.ones(2).byte()}
EXPERTS = torch.ones(2, 4, 6).to(torch.float8_e4m3fn)
MIXED = torch.arange(16).flip(0).int() // 8


@pytest.mark.parametrize(
    ("declared", "parts", "message"),
    [
        (GPTQ, gptq(scales=torch.ones(3, 8).half()), r"scales must be \[2, 8\]"),
        (GPTQ | {"group_size": 6}, gptq(), r"scales must be \[3, 8\]"),
        (GPTQ, gptq(qzeros=ints(2, 2)), r"qzeros must be \[2, 1\]"),
        (GPTQ, gptq(qzeros=None), "qzeros is missing"),
        (GPTQ, gptq(scales=None), "scales is missing"),
        (GPTQ, gptq(qweight=torch.ones(2, 8)), "qweight must be int32"),
        (GPTQ, gptq(qweight=ints(2, 2, 8)), "qweight must be a matrix"),
        (GPTQ, gptq(qzeros=ints(2, 1, fill=-1)), "stored as 15, which programs read as 0 or as 16"),
        (GPTQ | {"sym": True}, gptq(), "declared symmetric, but a zero point is not 8"),
        (GPTQ, gptq(g_idx=MIXED), "desc_act is false, but g_idx is not in order"),
        (GPTQ | {"desc_act": True}, gptq(g_idx=MIXED + 1), "g_idx names groups that have no"),
        (GPTQ | {"desc_act": True}, gptq(g_idx=None), "g_idx is missing"),
        (GPTQ, gptq(perm=MIXED), "perm has no meaning"),
        (AWQ, awq(scales=torch.ones(4, 8).half()), r"scales must be \[2, 8\]"),
        (AWQ | {"group_size": 5}, awq(), "16 inputs are not groups of 5"),
        (AWQ, awq(qzeros=None), "qzeros is missing"),
        (AWQ | {"zero_point": False}, awq(), "declared without zero points, but one is not 8"),
        (FLOATS, floats(weight_scale=torch.ones(4, 6)), r"weight_scale must be \[4, 1\]"),
        (FLOATS, floats(weight_scale=torch.ones(1)), r"weight_scale must be \[4, 1\]"),
        (FLOATS, floats(weight_scale=None), "weight_scale is missing"),
        (FLOATS, floats(torch.bfloat16), "weight must be float8_e4m3fn"),
        (FLOATS, floats(torch.float8_e5m2), "weight must be float8_e4m3fn"),
        (FLOATS, floats(weight=EXPERTS), "experts in one tensor are not read in this form"),
        (FLOATS, {"k_scale": torch.ones(1)}, "the weight itself is missing"),
        (BLOCKS, floats(), r"weight_scale must be \[1, 2\]"),
        (FLOATS, floats(weight_zero_point=torch.ones(4, 1).char()), "declared symmetric, but"),
        (ASYMMETRIC, floats(torch.int8), "weight_zero_point is missing"),
        (PACKED, packed(weight_shape=torch.tensor([4, 24])), r"weight_shape says \[4, 24\]"),
        (PACKED, packed(weight_shape=torch.tensor([4, 12])), "12 columns are not groups of 8"),
        (PACKED, packed(weight_shape=None), "weight_shape is missing"),
        (PACKED, packed(weight_scale=torch.ones(4, 4)), r"weight_scale must be \[4, 2\]"),
        (PACKED, packed(weight_g_idx=torch.arange(16).int() // 4), "does not name groups of 8"),
        (PACKED, packed(weight_g_idx=torch.arange(16).int() // 9), "does not name groups of 8"),
        (FLOATS, floats(weight_packed=ints(4, 2)), "weight_packed has no meaning"),
        (PACKED, packed(weight=torch.ones(4, 16)), "weight has no meaning"),
        (FP4, fp4(weight_global_scale=None), "weight_global_scale is missing"),
        (FP4, fp4(weight_scale=torch.ones(4, 2)), "weight_scale must be float8_e4m3fn"),
        (FP4, fp4(weight_packed=torch.ones(4, 12).byte()), "24 columns are not groups of 16"),
        (FP4, fp4(weight_zero_point=ints(1)), "weight_zero_point has no meaning"),
        (FP4, fp4(weight_packed=torch.ones(2, 4, 16).byte()), "must be a matrix"),
        (NVFP4, nvfp4(weight_scale_2=None), "weight_scale_2 is missing"),
        (NVFP4, nvfp4(weight_scale_2=torch.ones(4)), r"weight_scale_2 must be \[\] or \[1\]"),
        (NVFP4, nvfp4(pre_quant_scale=torch.ones(32)), "pre_quant_scale has no meaning"),
        (NVFP4, nvfp4(weight=torch.ones(4, 8).byte()), r"weight_scale must be \[4, 1\]"),
        (
            NVFP4 | {"quant_algo": "MXFP8"},
            floats(shape=(4, 32), weight_scale=torch.full((4, 1), 255).byte()),
            "weight_scale has 255, which is no number",
        ),
        (NVFP4 | {"quant_algo": "MXFP8"}, floats(), "6 columns are not groups of 32"),
        (NVFP4 | {"quant_algo": "FP8"}, nvfp4(), "weight must be float8_e4m3fn"),
        (NVFP4 | {"quant_algo": "FP8"}, floats(), r"weight_scale must be \[\] or \[1\]"),
        (BNB, bnb({"shape": [4, 9]}), r"16 bytes do not hold the numbers of \[4, 9\]"),
        (BNB, bnb({"shape": None}), "no shape or no size of blocks"),
        (BNB, bnb({"blocksize": 8}), r"absmax must be \[4\]"),
        (BNB, bnb({"quant_type": "fp4"}), "the state says 'fp4'"),
        (BNB, bnb(quant_map=MAPS["fp4"]), "quant_map is not that of nf4"),
        (BNB, bnb(quant_state=torch.ones(3).byte()), "the state is no JSON"),
        (BNB, bnb(absmax=None), "absmax is missing"),
        (BNB, bnb({"nested_blocksize": 256}, **NESTED), "the state has no nested_offset"),
        (BNB | {"bnb_4bit_quant_storage": "bfloat16"}, bnb(), "weight must be bfloat16"),
        (
            {"quant_method": "bitsandbytes", "load_in_8bit": True},
            floats(torch.int8, weight_scale=None, SCB=torch.ones(4), weight_format=ints(fill=2)),
            "only the weight_format 0",
        ),
    ],
)
def test_parts_that_contradict_the_form_are_refused_with_their_shapes(declared, parts, message):
    form = form_of(declared)
    with pytest.raises(UnsupportedModel, match=message) as caught:
        form.decode("layers.0.up.weight", parts)
    assert str(caught.value).startswith(f"layers.0.up.weight in {form.words}: ")
    for tensor in parts.values():
        assert str(list(tensor.shape)) in str(caught.value)


def test_experts_in_one_tensor_are_refused_in_the_forms_of_modelopt():
    form = form_of(NVFP4)
    names = ["gate_up_proj", "gate_up_proj_weight_scale", "gate_up_proj_weight_scale_2"]
    found = {form.part(f"layers.0.mlp.experts.{name}").weight for name in names}
    assert found == {"layers.0.mlp.experts.gate_up_proj"}
    with pytest.raises(UnsupportedModel, match="experts in one tensor are not read"):
        form.decode(found.pop(), {"weight_scale": torch.ones(1)})
