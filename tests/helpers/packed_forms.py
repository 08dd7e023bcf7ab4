"""Weights stored as compressed-tensors, modelopt, GPTQ, AWQ and bitsandbytes store them.

Each function stores a matrix in float32, coarsely, and tells in float64 which numbers it then has
stored; where the form itself rounds to float32 between two steps, so do they.
"""

from __future__ import annotations

import json
from typing import Any

import torch

Stored = tuple[dict[str, torch.Tensor], torch.Tensor]

E2M1 = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6])


def in_words(numbers: torch.Tensor, bits: int, order: list[int] | None = None) -> torch.Tensor:
    """Unsigned numbers [R, C] in int32 words [R, C * bits / 32], the last filled up with zeros."""
    count = 32 // bits
    padded = torch.zeros(len(numbers), -(-numbers.shape[1] // count) * count, dtype=torch.int64)
    padded[:, : numbers.shape[1]] = numbers
    of_word = padded.unflatten(1, (-1, count))
    word = sum(
        of_word[..., number] << (bits * place) for place, number in enumerate(order or range(count))
    )
    return torch.where(word >= 2**31, word - 2**32, word).to(torch.int32)


def in_bytes(codes: torch.Tensor, high_first: bool = False) -> torch.Tensor:
    """Two codes of 4 bits a byte."""
    first, second = codes[..., 0::2], codes[..., 1::2]
    both = first * 16 + second if high_first else first + second * 16
    return both.to(torch.uint8)


def each(values: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
    """The value [R, G] of every column's group."""
    return values[:, groups]


def fp8(weight: torch.Tensor, how: str) -> Stored:
    """compressed-tensors, with a scale for each `channel` or for the `tensor`."""
    largest = weight.abs().amax(1, keepdim=True) if how == "channel" else weight.abs().max()[None]
    scale = (largest / 448).to(torch.bfloat16)
    stored = (weight / scale.float()).clamp(-448, 448).to(torch.float8_e4m3fn)
    parts = {"weight": stored, "weight_scale": scale, "input_scale": torch.ones(1)}
    return parts, stored.double() * scale.double()


def int8(weight: torch.Tensor) -> Stored:
    """compressed-tensors, with a scale and a zero point for each channel."""
    low, high = weight.amin(1, keepdim=True), weight.amax(1, keepdim=True)
    scale = ((high - low) / 255).to(torch.bfloat16)
    zero = (-128 - low / scale.float()).round().clamp(-128, 127)
    stored = (weight / scale.float() + zero).round().clamp(-128, 127)
    parts = {"weight": stored.to(torch.int8), "weight_scale": scale}
    parts["weight_zero_point"] = zero.to(torch.int8)
    return parts, (stored.double() - zero.double()) * scale.double()


def grouped(
    weight: torch.Tensor, bits: int, groups: torch.Tensor, symmetric: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Unsigned numbers, their scales and zero points [R, G], and what they mean.

    No zero point is 0: the older format of GPTQ cannot hold that.
    """
    count, most = int(groups.max()) + 1, 2**bits - 1
    scale = torch.stack([weight[:, groups == g].abs().amax(1) for g in range(count)], 1)
    scale = (scale / 2 ** (bits - 1)).half()
    zero = torch.full_like(scale, 2 ** (bits - 1), dtype=torch.int64)
    if not symmetric:
        zero += torch.arange(zero.numel()).reshape(zero.shape) % 3 - 1
    numbers = (weight / each(scale.float(), groups)).round().long() + each(zero, groups)
    numbers = numbers.clamp(0, most)
    means = (numbers - each(zero, groups)).double() * each(scale.double(), groups)
    return numbers, scale, zero, means


def packed(weight: torch.Tensor, bits: int, size: int, symmetric: bool = True) -> Stored:
    """compressed-tensors, `pack-quantized`."""
    groups = torch.arange(weight.shape[1]) // size
    numbers, scale, zero, means = grouped(weight, bits, groups, symmetric)
    parts = {"weight_packed": in_words(numbers, bits), "weight_scale": scale}
    parts["weight_shape"] = torch.tensor(weight.shape)
    if not symmetric:
        parts["weight_zero_point"] = in_words(zero.T, bits).T
    return parts, means


def gptq(weight: torch.Tensor, bits: int, size: int, ordered: bool, offset: int) -> Stored:
    """GPTQ: zero points are stored less `offset`; groups are mixed unless `ordered`."""
    groups = torch.arange(weight.shape[1]) // size
    if not ordered:
        generator = torch.Generator().manual_seed(weight.shape[1])
        groups = groups[torch.randperm(len(groups), generator=generator)]
    numbers, scale, zero, means = grouped(weight, bits, groups, symmetric=False)
    parts = {"qweight": in_words(numbers, bits).T, "qzeros": in_words(zero.T - offset, bits)}
    return parts | {"scales": scale.T, "g_idx": groups.int()}, means


def awq(weight: torch.Tensor, size: int) -> Stored:
    """AWQ, `gemm`."""
    order = [0, 2, 4, 6, 1, 3, 5, 7]
    groups = torch.arange(weight.shape[1]) // size
    numbers, scale, zero, means = grouped(weight, 4, groups, symmetric=False)
    parts = {"qweight": in_words(numbers.T, 4, order), "qzeros": in_words(zero.T, 4, order)}
    return parts | {"scales": scale.T}, means


def nvfp4(weight: torch.Tensor, program: str) -> Stored:
    """NVFP4 as `compressed-tensors` writes it, which divides scales, or `modelopt`."""
    of_all = (weight.abs().max() / (448 * 6)).float()
    of_group = weight.unflatten(1, (-1, 16)).abs().amax(2) / 6 / of_all
    scale = of_group.clamp(2**-9, 448).to(torch.float8_e4m3fn)
    inverse = 1 / of_all
    both = scale.float() / inverse if program == "compressed-tensors" else scale.float() * of_all
    groups = torch.arange(weight.shape[1]) // 16
    codes = (weight / each(both, groups)).unsqueeze(-1).sub(E2M1).abs().argmin(-1)
    means = E2M1[codes].double() * each(both, groups).double()
    if program == "modelopt":
        parts = {"weight": in_bytes(codes), "weight_scale": scale, "weight_scale_2": of_all}
        return parts | {"input_scale": torch.tensor(0.5)}, means
    parts = {"weight_packed": in_bytes(codes), "weight_scale": scale}
    return parts | {"weight_global_scale": inverse[None]}, means


def modelopt_fp8(weight: torch.Tensor) -> Stored:
    """FP8 with one scale, and one that concerns the cache of keys."""
    scale = (weight.abs().max() / 448).float()
    stored = (weight / scale).to(torch.float8_e4m3fn)
    parts = {"weight": stored, "weight_scale": scale, "input_scale": torch.tensor(0.5)}
    return parts | {"k_scale": torch.tensor(0.25)}, stored.double() * scale.double()


NF4 = [-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635]
NF4 += [-0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725]
NF4 += [0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941]
NF4 += [0.7229568362236023, 1.0]
_FP4 = [0, 0.0625, 8, 12, 4, 6, 2, 3]
MAPS = {"nf4": torch.tensor(NF4), "fp4": torch.tensor([*_FP4, *(-n for n in _FP4)]) / 12}


def bitsandbytes(weight: torch.Tensor, kind: str, size: int, nested: bool) -> Stored:
    """Four bits, two a byte with the first in the upper half; `nested`: scales in bytes, too."""
    table, count = MAPS[kind], weight.numel()
    block = torch.arange(count) // size
    scales = torch.stack([weight.flatten()[block == b].abs().max() for b in range(block[-1] + 1)])
    state: dict[str, Any] = {"quant_type": kind, "blocksize": size, "dtype": "bfloat16"}
    state |= {"shape": list(weight.shape)}
    parts = {"weight.absmax": scales, "weight.quant_map": table.clone()}
    if nested:
        of_bytes = torch.linspace(-1, 1, 256)
        of_block = torch.arange(len(scales)) // 256
        offset = scales.mean()
        largest = torch.full((int(of_block[-1]) + 1,), (scales - offset).abs().max().item())
        scaled = (scales - offset) / largest[of_block]
        stored = (scaled.unsqueeze(1) - of_bytes).abs().argmin(1)
        scales = of_bytes[stored] * largest[of_block] + offset
        state |= {"nested_blocksize": 256, "nested_dtype": "float32"}
        state |= {"nested_offset": offset.item()}
        parts["weight.absmax"] = stored.to(torch.uint8)
        parts |= {"weight.nested_absmax": largest, "weight.nested_quant_map": of_bytes}
    scaled = (weight.flatten() / scales[block]).unsqueeze(1)
    codes = (scaled - table).abs().argmin(1)
    written = torch.tensor(list(json.dumps(state).encode()), dtype=torch.uint8)
    parts[f"weight.quant_state.bitsandbytes__{kind}"] = written
    parts["weight"] = in_bytes(codes, high_first=True)[:, None]
    return parts, (table[codes].double() * scales[block].double()).reshape(weight.shape)


def bitsandbytes_int8(weight: torch.Tensor) -> Stored:
    """Eight bits with a scale for each row."""
    scale = weight.abs().amax(1)
    stored = (weight / scale[:, None] * 127).round().to(torch.int8)
    parts = {"weight": stored, "SCB": scale, "weight_format": torch.tensor(0, dtype=torch.uint8)}
    third = torch.tensor(1 / 127, dtype=torch.float32).double()
    return parts, (stored.float() * scale[:, None]).double() * third


def ct_settings(format: str, **weights: Any) -> dict[str, Any]:
    """A `quantization_config` of compressed-tensors."""
    weights = {"type": "int", "num_bits": 8, "symmetric": True, "dynamic": False} | weights
    group = {"targets": ["Linear"], "weights": weights, "input_activations": None}
    settings = {"quant_method": "compressed-tensors", "format": format, "ignore": ["lm_head"]}
    return settings | {"quantization_status": "compressed", "config_groups": {"group_0": group}}
