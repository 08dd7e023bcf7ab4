"""Stored forms against a loop over their numbers in float64, and what contradicts a form."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mbench.core.errors import UnsupportedModel
from mbench.moe.quantised.forms import form_of

BLOCKS = {"quant_method": "fp8", "weight_block_size": [128, 128]}
MXFP4 = {"quant_method": "mxfp4"}
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def e4m3(code):
    """The number of a byte: 4 bits of exponent with bias 7, 3 of mantissa, no infinities."""
    sign, exponent, mantissa = code >> 7, code >> 3 & 15, code & 7
    if exponent == 15 and mantissa == 7:
        return float("nan")
    size = (mantissa / 8) * 2**-6 if exponent == 0 else (1 + mantissa / 8) * 2.0 ** (exponent - 7)
    return -size if sign else size


def e2m1(code):
    """The number of half a byte: 2 bits of exponent with bias 1, 1 of mantissa."""
    sign, exponent, mantissa = code >> 3, code >> 1 & 3, code & 1
    size = mantissa / 2 if exponent == 0 else (1 + mantissa / 2) * 2.0 ** (exponent - 1)
    return -size if sign else size


def drawn(shape, seed, limit=256):
    return torch.randint(0, limit, shape, generator=torch.Generator().manual_seed(seed)).byte()


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    block=st.tuples(st.integers(1, 24), st.integers(1, 24)),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 99),
)
def test_fp8_numbers_are_codes_times_their_blocks_scales(shape, block, dtype, seed):
    codes = drawn(shape, seed)
    needed = [-(-n // b) for n, b in zip(shape, block, strict=True)]
    scales = torch.rand(needed, generator=torch.Generator().manual_seed(seed)).to(dtype)
    parts = {"weight": codes.view(torch.float8_e4m3fn), "weight_scale_inv": scales}
    decoded = form_of(BLOCKS | {"weight_block_size": list(block)}).decode("w", parts)
    expected = torch.empty(shape, dtype=torch.float64)
    for i, j in itertools.product(*map(range, shape)):
        expected[i, j] = e4m3(int(codes[i, j])) * scales[i // block[0], j // block[1]].item()
    assert decoded.dtype == torch.float32
    assert torch.allclose(decoded, expected.float(), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
@pytest.mark.parametrize("name", ["weight_scale", "weight_scale_inv"])
def test_fp8_may_have_one_scale_for_all(shape, name):
    codes = torch.arange(256, dtype=torch.uint8).reshape(16, 16)
    parts = {"weight": codes.view(torch.float8_e4m3fn), name: torch.full(shape, 0.3)}
    decoded = form_of({"quant_method": "fp8", "activation_scheme": "static"}).decode("w", parts)
    scale = torch.tensor(0.3).item()
    expected = torch.tensor([e4m3(code) * scale for code in range(256)], dtype=torch.float64)
    assert torch.equal(decoded.flatten().nan_to_num(7), expected.float().nan_to_num(7))


def test_fp8_scales_may_be_powers_of_two_where_declared():
    scales = torch.tensor([[126, 127], [130, 1]], dtype=torch.uint8)
    parts = {"weight": torch.ones(4, 4).to(torch.float8_e4m3fn)}
    parts["weight_scale_inv"] = scales.view(torch.float8_e8m0fnu)
    settings = BLOCKS | {"weight_block_size": [2, 2]}
    decoded = form_of(settings | {"scale_fmt": "ue8m0"}).decode("w", parts)
    assert decoded[::2, ::2].tolist() == [[0.5, 1], [8, 2.0**-126]]
    with pytest.raises(UnsupportedModel, match="scales must be floating numbers"):
        form_of(settings).decode("w", parts)


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(1, 3)),
    seed=st.integers(0, 99),
)
def test_mxfp4_numbers_are_codes_times_powers_of_two(shape, seed):
    blocks, scales = drawn((*shape, 16), seed), drawn(shape, seed, 255)
    form = form_of(MXFP4)
    parts = {"blocks": blocks, "scales": scales}
    experts, rows, groups = shape
    expected = torch.empty(experts, groups * 32, rows, dtype=torch.float64)
    for e, r, g, byte in itertools.product(range(experts), range(rows), range(groups), range(16)):
        both = int(blocks[e, r, g, byte])
        power = 2.0 ** (int(scales[e, r, g]) - 127)
        expected[e, g * 32 + 2 * byte, r] = e2m1(both & 15) * power
        expected[e, g * 32 + 2 * byte + 1, r] = e2m1(both >> 4) * power
    assert torch.equal(form.decode("w", parts), expected.float())
    pieces = [form.decode("w", piece) for piece in form.pieces("w", parts)]
    assert torch.equal(torch.cat(pieces), expected.float())


def fp8(shape=(200, 130), scales=(2, 2), dtype=torch.float8_e4m3fn, **others):
    parts = {"weight": torch.zeros(shape).to(dtype), "weight_scale_inv": torch.ones(scales)}
    return {name: each for name, each in (parts | others).items() if each is not None}


def mxfp4(blocks=(2, 3, 4, 16), scales=(2, 3, 4), dtype=torch.uint8, fill=1, **others):
    parts = {"blocks": torch.zeros(blocks, dtype=dtype)}
    return parts | {"scales": torch.full(scales, fill, dtype=torch.uint8)} | others


@pytest.mark.parametrize(
    ("declared", "parts", "message"),
    [
        (BLOCKS, fp8(scales=(1, 1)), r"blocks of this size need scales \[2, 2\]"),
        (BLOCKS, fp8(shape=(130, 300), scales=(3, 2)), r"need scales \[2, 3\]"),
        (BLOCKS, fp8(weight_scale_inv=None), "it needs one of weight_scale_inv and weight_scale"),
        (BLOCKS, fp8(weight_scale=torch.ones(2, 2)), "it needs one of"),
        (BLOCKS, fp8(weight=None), "scales without a weight"),
        (BLOCKS, fp8(dtype=torch.float8_e5m2), "must be a matrix in float8_e4m3fn"),
        (BLOCKS, fp8(dtype=torch.int8), "must be a matrix in float8_e4m3fn"),
        (BLOCKS, fp8(shape=(2, 200, 130)), "must be a matrix"),
        (BLOCKS, fp8(weight_scale_inv=torch.ones(2, 2).char()), "scales must be floating"),
        ({"quant_method": "fp8"}, fp8(), "it needs one scale"),
        (MXFP4, mxfp4(scales=(2, 3, 5)), r"scales the same less 16"),
        (MXFP4, mxfp4(blocks=(2, 3, 4, 8)), r"blocks must be \[experts, rows, groups, 16\]"),
        (MXFP4, mxfp4(dtype=torch.int8), "both must be in uint8"),
        (MXFP4, mxfp4(fill=255), "a scale of 255 is no number"),
        (MXFP4, mxfp4(gate_up_proj=torch.ones(1)), "nothing else"),
    ],
)
def test_parts_that_contradict_the_form_are_refused_with_their_shapes(declared, parts, message):
    form = form_of(declared)
    with pytest.raises(UnsupportedModel, match=message) as caught:
        form.decode("layers.0.weight", parts)
    assert str(caught.value).startswith(f"layers.0.weight in {form.words}: ")
    for tensor in parts.values():
        assert str(list(tensor.shape)) in str(caught.value)


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ({"quant_method": "quip"}, r"stored by 'quip' are not read \(read: .*fp8.*mxfp4"),
        ({}, "stored by 'None' are not read"),
        (BLOCKS | {"fmt": "e5m2"}, "with fmt 'e5m2' are not read"),
        (BLOCKS | {"rotation": 3}, r"its setting 'rotation' is not known \(known: activation"),
        (BLOCKS | {"weight_block_size": [128]}, "must be two numbers"),
        (BLOCKS | {"weight_block_size": [128, 0]}, "must be two numbers"),
        (BLOCKS | {"weight_block_size": 128}, "must be two numbers"),
        (MXFP4 | {"group_size": 16}, "its setting 'group_size' is not known"),
    ],
)
def test_settings_that_are_not_understood_are_refused_by_name(declared, message):
    with pytest.raises(UnsupportedModel, match=message):
        form_of(declared)
