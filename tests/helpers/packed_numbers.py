"""Stored words, scales and numbers of few bits, drawn at random, and read out one by one."""

from __future__ import annotations

import itertools

import torch

from mbench.moe.quantised.forms import form_of

DTYPES = (torch.float16, torch.bfloat16, torch.float32)


FP4 = (0, 0.5, 1, 1.5, 2, 3, 4, 6)


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
