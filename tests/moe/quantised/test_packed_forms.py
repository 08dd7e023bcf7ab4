"""Packed forms against loops over single numbers, taken out of the stored bits one by one.

Python's floats have 53 bits. Where a product of stored numbers fits in them it is exact, and is
rounded once to the 24 bits of float32; where a form rounds in between, numpy's float32 does.
"""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from helpers.packed_forms import MAPS, ct_settings
from mbench.core.errors import UnsupportedModel
from mbench.moe.quantised.forms import form_of
from mbench.moe.quantised.reader import StoredWeights

DTYPES = (torch.float16, torch.bfloat16, torch.float32)
FP4 = (0, 0.5, 1, 1.5, 2, 3, 4, 6)
AWQ_PLACES = (0, 4, 1, 5, 2, 6, 3, 7)
"""Of each of eight outputs, the place of its 4 bits in a word."""
many = settings(max_examples=25, deadline=None)
seeds = st.integers(0, 10**6)


def source(seed):
    return torch.Generator().manual_seed(seed)


def words(shape, seed):
    return torch.randint(-(2**31), 2**31, shape, generator=source(seed)).to(torch.int32)


def bytes_(shape, seed):
    return torch.randint(0, 256, shape, generator=source(seed)).to(torch.uint8)


def scales(shape, dtype, seed):
    return (torch.rand(shape, generator=source(seed)) * 0.1 - 0.02).to(dtype)


def e4m3(shape, seed):
    """Bytes that are numbers: one of each sign is none."""
    codes = bytes_(shape, seed)
    return torch.where(codes & 127 == 127, 1, codes).to(torch.uint8).view(torch.float8_e4m3fn)


def taken(word, place, bits):
    return (int(word) & 0xFFFFFFFF) >> (place * bits) & (2**bits - 1)


def fp4(code):
    return FP4[code & 7] * (-1 if code & 8 else 1)


def decoded(declared, parts):
    """What the form makes of tensors by the names that they have in a checkpoint."""
    form, by_role = form_of(declared), {}
    for name, tensor in parts.items():
        part = form.part(f"model.layers.0.up.{name}")
        assert part.weight == "model.layers.0.up.weight"
        by_role[part.role] = tensor
    return form.decode("model.layers.0.up.weight", by_role)


def assert_numbers(found, shape, number):
    expected = torch.empty(shape, dtype=torch.float64)
    for index in itertools.product(*map(range, shape)):
        expected[index] = float(number(*index))
    assert found.dtype == torch.float32
    assert torch.equal(found, expected.float())


@many
@given(
    bits=st.sampled_from([2, 4, 8]),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    size=st.sampled_from([-1, 3, 8, 20]),
    mixed=st.booleans(),
    newer=st.booleans(),
    dtype=st.sampled_from(DTYPES),
    seed=seeds,
)
def test_gptq(bits, shape, size, mixed, newer, dtype, seed):
    in_word, (a, b) = 32 // bits, shape
    inputs, outputs = a * in_word, b * in_word
    of_input = [i // (inputs if size == -1 else size) for i in range(inputs)]
    groups = of_input[-1] + 1
    if mixed:
        of_input = [of_input[i] for i in torch.randperm(inputs, generator=source(seed)).tolist()]
    numbers, scale = words((a, outputs), seed), scales((groups, outputs), dtype, seed)
    # Each zero point but the one that programs read differently.
    zero = torch.randint(0, 2**bits - 1, (groups, outputs), generator=source(seed))
    zeros = torch.zeros(groups, b, dtype=torch.int64)
    for o in range(outputs):
        zeros[:, o // in_word] |= zero[:, o] << (bits * (o % in_word))
    zeros = zeros.where(zeros < 2**31, zeros - 2**32).int()
    parts = {"qweight": numbers, "qzeros": zeros, "scales": scale, "g_idx": torch.tensor(of_input)}
    declared = {"quant_method": "gptq", "bits": bits, "group_size": size, "sym": False}
    declared |= {"desc_act": mixed, "checkpoint_format": "gptq_v2" if newer else "gptq"}
    if not mixed and seed % 2:
        del parts["g_idx"]

    def number(o, i):
        group = of_input[i]
        q = taken(numbers[i // in_word, o], i % in_word, bits)
        return (q - int(zero[group, o]) - (0 if newer else 1)) * scale[group, o].item()

    assert_numbers(decoded(declared, parts), (outputs, inputs), number)


@many
@given(groups=st.integers(1, 3), size=st.integers(1, 7), words_=st.integers(1, 3), seed=seeds)
def test_awq(groups, size, words_, seed):
    inputs, outputs = groups * size, words_ * 8
    numbers, zeros = words((inputs, words_), seed), words((groups, words_), seed + 1)
    scale = scales((groups, outputs), torch.float16, seed)
    declared = {"quant_method": "awq", "bits": 4, "version": "GEMM", "zero_point": True}
    declared |= {"group_size": -1 if groups == 1 else size}

    def number(o, i):
        word, place = o // 8, AWQ_PLACES[o % 8]
        q, zero = (taken(of[word], place, 4) for of in (numbers[i], zeros[i // size]))
        return (q - zero) * scale[i // size, o].item()

    parts = {"qweight": numbers, "qzeros": zeros, "scales": scale}
    assert_numbers(decoded(declared, parts), (outputs, inputs), number)


@many
@given(
    bits=st.sampled_from([4, 8]),
    rows=st.integers(1, 19),
    groups=st.integers(1, 4),
    size=st.integers(1, 11),
    zeros=st.booleans(),
    mixed=st.booleans(),
    dtype=st.sampled_from(DTYPES),
    seed=seeds,
)
def test_packed_integers(bits, rows, groups, size, zeros, mixed, dtype, seed):
    in_word, columns = 32 // bits, groups * size
    numbers = words((rows, -(-columns // in_word)), seed)
    scale = scales((rows, groups), dtype, seed)
    zero = words((-(-rows // in_word), groups), seed + 1)
    of_column = [c // size for c in range(columns)]
    if mixed:
        of_column = [of_column[c] for c in torch.randperm(columns, generator=source(seed))]
    how = {"strategy": "group", "group_size": size} if groups > 1 else {"strategy": "channel"}
    declared = ct_settings("pack-quantized", num_bits=bits, symmetric=not zeros, **how)
    parts = {"weight_packed": numbers, "weight_scale": scale}
    parts["weight_shape"] = torch.tensor([rows, columns])
    parts |= {"weight_zero_point": zero} if zeros else {}
    parts |= {"weight_g_idx": torch.tensor(of_column).int()} if mixed else {}

    def number(r, c):
        q = taken(numbers[r, c // in_word], c % in_word, bits)
        z = taken(zero[r // in_word, of_column[c]], r % in_word, bits) if zeros else 2 ** (bits - 1)
        return (q - z) * scale[r, of_column[c]].item()

    assert_numbers(decoded(declared, parts), (rows, columns), number)


@many
@given(
    shape=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    block=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    strategy=st.sampled_from(["tensor", "channel", "block"]),
    kind=st.sampled_from(["fp8", "int8", "int8 with zero points"]),
    dtype=st.sampled_from(DTYPES),
    seed=seeds,
)
def test_numbers_of_eight_bits(shape, block, strategy, kind, dtype, seed):
    block = {"tensor": shape, "channel": (1, shape[1]), "block": block}[strategy]
    blocks = tuple(-(-n // step) for n, step in zip(shape, block, strict=True))
    of_floats, zeros = kind == "fp8", kind.endswith("zero points")
    stored = e4m3(shape, seed) if of_floats else bytes_(shape, seed).view(torch.int8)
    scale = scales(blocks, dtype, seed)
    zero = bytes_(blocks, seed + 1).view(torch.int8)
    how = {"block_structure": list(block)} if strategy == "block" else {}
    how |= {"type": "float" if of_floats else "int", "strategy": strategy, "symmetric": not zeros}
    declared = ct_settings("float-quantized" if of_floats else "int-quantized", **how)
    parts = {"weight": stored, "weight_scale": scale[0] if strategy == "tensor" else scale}
    parts |= {"weight_zero_point": zero} if zeros else {}

    def number(r, c):
        at = r // block[0], c // block[1]
        q = stored[r, c].item() - (int(zero[at]) if zeros else 0)
        return q * scale[at].item()

    assert_numbers(decoded(declared, parts), shape, number)


@many
@given(
    rows=st.integers(1, 6),
    groups=st.integers(1, 3),
    program=st.sampled_from(["compressed-tensors", "modelopt"]),
    seed=seeds,
)
def test_nvfp4(rows, groups, program, seed):
    codes, scale = bytes_((rows, groups * 8), seed), e4m3((rows, groups), seed)
    of_all = torch.rand(1, generator=source(seed)) + 0.01
    if program == "modelopt":
        declared = {"quant_method": "modelopt", "quant_algo": "NVFP4", "group_size": 16}
        parts = {"weight": codes, "weight_scale": scale, "weight_scale_2": of_all[0]}
        parts["input_scale"] = torch.tensor(0.5)
    else:
        how = {"type": "float", "strategy": "tensor_group", "group_size": 16}
        declared = ct_settings("nvfp4-pack-quantized", num_bits=4, **how)
        parts = {"weight_packed": codes, "weight_scale": scale, "weight_global_scale": of_all}

    def number(r, c):
        code = int(codes[r, c // 2]) >> (4 * (c % 2)) & 15
        of_group, whole = np.float32(scale[r, c // 16].item()), np.float32(of_all.item())
        both = of_group * whole if program == "modelopt" else of_group / whole
        return np.float32(fp4(code)) * both

    assert_numbers(decoded(declared, parts), (rows, groups * 16), number)


@many
@given(
    rows=st.integers(1, 6),
    groups=st.integers(1, 3),
    four=st.booleans(),
    program=st.sampled_from(["compressed-tensors", "modelopt"]),
    seed=seeds,
)
def test_scales_that_are_powers_of_two(rows, groups, four, program, seed):
    exponents = bytes_((rows, groups), seed + 1).clamp(max=254)
    exponents[0, 0] = 0
    four = four and program == "compressed-tensors"
    if four:
        name, stored = "weight_packed", bytes_((rows, groups * 16), seed)
    else:
        name, stored = "weight", e4m3((rows, groups * 32), seed)
    declared = {"quant_method": "modelopt", "quant_algo": "MXFP8"}
    if program == "compressed-tensors":
        how = {"type": "float", "num_bits": 4 if four else 8, "scale_dtype": "torch.uint8"}
        how |= {"strategy": "group", "group_size": 32}
        declared = ct_settings("mxfp4-pack-quantized" if four else "mxfp8-quantized", **how)

    def number(r, c):
        power = 2.0 ** (int(exponents[r, c // 32]) - 127)
        if four:
            return fp4(int(stored[r, c // 2]) >> (4 * (c % 2)) & 15) * power
        return stored[r, c].item() * power

    found = decoded(declared, {name: stored, "weight_scale": exponents})
    assert_numbers(found, (rows, groups * 32), number)


@many
@given(
    shape=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    per_channel=st.booleans(),
    seed=seeds,
)
def test_fp8_of_modelopt(shape, per_channel, seed):
    stored = e4m3(shape, seed)
    scale = scales((shape[0],) if per_channel else (), torch.float32, seed)
    algorithm = "FP8_PER_CHANNEL_PER_TOKEN" if per_channel else "FP8"
    old = {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": algorithm}}
    new = {"quant_method": "modelopt", "quant_algo": algorithm}
    for declared in (new, {"quant_method": "modelopt"} | old):
        found = decoded(declared, {"weight": stored, "weight_scale": scale})
        assert_numbers(
            found, shape, lambda r, c: stored[r, c].item() * scale.expand(shape[0])[r].item()
        )


@many
@given(
    shape=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    size=st.sampled_from([2, 3, 64]),
    kind=st.sampled_from(["nf4", "fp4"]),
    nested=st.booleans(),
    storage=st.sampled_from([torch.uint8, torch.bfloat16]),
    seed=seeds,
)
def test_four_bits_of_bitsandbytes(shape, size, kind, nested, storage, seed):
    count = shape[0] * shape[1]
    if storage is torch.bfloat16 and count % 4:
        storage = torch.uint8
    codes = bytes_((-(-count // 2),), seed)
    blocks, outer = -(-count // size), 2
    state = {"quant_type": kind, "blocksize": size, "shape": list(shape), "dtype": "float16"}
    parts = {"weight": codes.view(storage)[:, None], "weight.quant_map": MAPS[kind]}
    if nested:
        table, of_byte = scales((256,), torch.float32, seed), bytes_((blocks,), seed + 1)
        largest = scales((-(-blocks // outer),), torch.float32, seed + 2)
        state |= {"nested_blocksize": outer, "nested_dtype": "float32", "nested_offset": 0.125}
        parts |= {"weight.absmax": of_byte, "weight.nested_absmax": largest}
        parts |= {"weight.nested_quant_map": table}
        scale = [
            np.float32(table[int(of_byte[b])].item()) * np.float32(largest[b // outer].item())
            + np.float32(0.125)
            for b in range(blocks)
        ]
    else:
        parts["weight.absmax"] = scales((blocks,), torch.float32, seed)
        scale = parts["weight.absmax"].tolist()
    written = torch.tensor(list(json.dumps(state).encode()), dtype=torch.uint8)
    parts[f"weight.quant_state.bitsandbytes__{kind}"] = written
    declared = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": kind}
    declared |= {"bnb_4bit_quant_storage": str(storage).removeprefix("torch.")}

    def number(r, c):
        at = r * shape[1] + c
        code = int(codes[at // 2]) >> (0 if at % 2 else 4) & 15
        return MAPS[kind][code].item() * float(scale[at // size])

    assert_numbers(decoded(declared, parts), shape, number)


@many
@given(shape=st.tuples(st.integers(1, 9), st.integers(1, 9)), seed=seeds)
def test_eight_bits_of_bitsandbytes(shape, seed):
    stored, scale = bytes_(shape, seed).view(torch.int8), scales((shape[0],), torch.float32, seed)
    third = np.float32(1 / 127)
    found = decoded(
        {"quant_method": "bitsandbytes", "load_in_8bit": True}, {"weight": stored, "SCB": scale}
    )
    assert_numbers(
        found,
        shape,
        lambda r, c: np.float32(stored[r, c].item()) * np.float32(scale[r].item()) * third,
    )


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
