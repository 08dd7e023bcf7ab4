"""Packed forms against loops over single numbers, taken out of the stored bits one by one.

Python's floats have 53 bits. Where a product of stored numbers fits in them it is exact, and is
rounded once to the 24 bits of float32; where a form rounds in between, numpy's float32 does.
"""

from __future__ import annotations

import json

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.packed_forms import MAPS, ct_settings
from helpers.packed_numbers import (
    DTYPES,
    assert_numbers,
    bytes_,
    decoded,
    e4m3,
    fp4,
    scales,
    source,
    taken,
    words,
)

AWQ_PLACES = (0, 4, 1, 5, 2, 6, 3, 7)
"""Of each of eight outputs, the place of its 4 bits in a word."""
many = settings(max_examples=25, deadline=None)
seeds = st.integers(0, 10**6)


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
