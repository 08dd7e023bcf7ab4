"""Checkpoints of compressed-tensors, as LLM Compressor writes them.

What a layer's tensors mean is said by the library (`compressed_tensors/compressors/`, and
`quantization/lifecycle/forward_helpers.py`, `_dequantize`):

    float-quantized, int-quantized, naive-quantized
        weight FP8 or int8 [out, in], weight_scale: weight * weight_scale; asymmetric int8 has
        weight_zero_point of the scale's shape: (weight - weight_zero_point) * weight_scale
    pack-quantized
        weight_packed int32 [out, in * bits / 32], weight_shape [2]: numbers from the lowest bits
        on, half their range added; weight_zero_point likewise, packed along the outputs
    nvfp4-pack-quantized
        weight_packed uint8 [out, in / 2], weight_scale FP8 [out, in / 16], weight_global_scale:
        FP4 * (weight_scale / weight_global_scale)
    mxfp4-pack-quantized, mxfp8-quantized
        weight_packed as above or weight FP8, weight_scale uint8 [out, in / 32], which is the
        exponent of a power of two, 127 added

A scale is for the tensor [1], a channel [out, 1], a group [out, in / size], or a block, of which
the last may be cut off. All is computed in float32. Where scales are of 16 bits, their products
need no rounding; the library rounds them to the scales' type, for NVFP4 to bfloat16.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from mbench.core.errors import UnsupportedModel
from mbench.moe.quantised.form import Form, Part, refuse_unknown
from mbench.moe.quantised.packing import E2M1, blocks_of, for_blocks, halves, integers
from mbench.moe.quantised.parts import PLAIN, Parts, by_last_word
from mbench.moe.quantised.settings import (
    activations_in_words,
    cache_in_words,
    inner,
    numbers_in_words,
    with_cache,
)

if TYPE_CHECKING:
    import torch

NAME = "compressed-tensors"
WHOLE = ("weight", "weight_scale", "weight_zero_point", "weight_g_idx")
PACKED = ("weight_packed", "weight_shape", *WHOLE[1:])
"""Roles of weights stored a number a number, and of those stored several in a word."""
NVFP4 = ("weight_packed", "weight_scale", "weight_global_scale")
MXFP4 = ("weight_packed", "weight_scale")
MXFP8 = ("weight", "weight_scale")
ROLES = frozenset((*WHOLE, *PACKED, *NVFP4))
BESIDE = (
    *("input_scale", "input_zero_point", "input_global_scale"),
    *("output_scale", "output_zero_point", "output_global_scale"),
)
"""Roles of what concerns activations."""
CACHED = ("q_scale", "k_scale", "v_scale", "q_zero_point", "k_zero_point", "v_zero_point")
"""Roles of what concerns the cache of keys and values, stored beside the layers they come from."""
IN_32: Mapping[str, tuple[Any, ...]] = {"strategy": ("group",), "group_size": (32,)}
FORMATS: Mapping[str, tuple[tuple[str, ...], Mapping[str, tuple[Any, ...]]]] = {
    "float-quantized": (WHOLE, {"type": ("float",), "num_bits": (8,)}),
    "int-quantized": (WHOLE, {"type": ("int",), "num_bits": (8,)}),
    "naive-quantized": (WHOLE, {"type": ("int", "float"), "num_bits": (8,)}),
    "pack-quantized": (PACKED, {"type": ("int",), "num_bits": (4, 8)}),
    "nvfp4-pack-quantized": (
        NVFP4,
        {"type": ("float",), "num_bits": (4,), "strategy": ("tensor_group",), "group_size": (16,)},
    ),
    "mxfp4-pack-quantized": (MXFP4, {"type": ("float",), "num_bits": (4,), **IN_32}),
    "mxfp8-quantized": (MXFP8, {"type": ("float",), "num_bits": (8,), **IN_32}),
}
"""Of each format that is read: the roles of what it stores, and what weights in it may be."""
NAMES = {NVFP4: "NVFP4", MXFP4: "MXFP4", MXFP8: "MXFP8"}
STRATEGIES = ("tensor", "channel", "group", "block")
KNOWN: Mapping[str, tuple[Any, ...] | None] = {
    **dict.fromkeys(("quant_method", "format", "global_compression_ratio", "ignore", "version")),
    **dict.fromkeys(("kv_cache_scheme", "config_groups", "sparsity_config")),
    # Older checkpoints say `frozen`; that weights are stored in fewer bits, their types show.
    "quantization_status": ("compressed", "frozen", None),
    "transform_config": (None, {}),
    "moe_sparsity_config": (None, {}),
}
WEIGHTS: Mapping[str, tuple[Any, ...] | None] = {
    **dict.fromkeys(("num_bits", "type", "strategy", "group_size", "block_structure", "actorder")),
    **dict.fromkeys(("observer", "observer_kwargs", "scale_dtype", "zp_dtype")),
    "symmetric": (True, False),
    "dynamic": (False,),
}


@dataclass(frozen=True)
class CompressedTensors(Form):
    """Numbers of one type, with scales of one kind, in every quantised layer."""

    roles: tuple[str, ...]
    """Of what the format stores."""
    kind: str
    """`float` or `int`."""
    bits: int
    symmetric: bool
    block: tuple[int, int]
    """Rows and columns that share a scale; -1 for all."""
    cut: bool
    """Whether the last block may be smaller, as that of squares may and that of groups may not."""
    asked: str = ""
    """Of activations."""

    @property
    def words(self) -> str:
        """E.g. `FP8 per channel (compressed-tensors)`."""
        if self.roles in NAMES:
            return f"{NAMES[self.roles]} ({NAME})"
        rows, columns = self.block
        shared = {(-1, -1): "per tensor", (1, -1): "per channel"}.get(self.block)
        grouped = f"in groups of {columns}" if rows == 1 else f"{rows}x{columns}"
        of = numbers_in_words({"type": self.kind, "num_bits": self.bits})
        return f"{of} {shared or grouped} ({NAME})"

    @property
    def activations(self) -> str:
        """E.g. `FP8 per token`."""
        return self.asked

    @property
    def beside(self) -> Collection[str]:
        """Of activations and of the cache of keys and values."""
        return (*BESIDE, *CACHED)

    def part(self, name: str) -> Part:
        """Tell what a stored tensor is part of, by its name alone."""
        owner, _, last = name.rpartition(".")
        if last in CACHED:
            layer = f"{last[0]}_proj"
            owner = owner if owner.endswith(layer) else f"{owner}.{layer}"
            return Part(f"{owner}.weight", last)
        return by_last_word(name, (*ROLES, *BESIDE))

    def decode(self, weight: str, parts: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the weight, float32 [out, in]."""
        stored = Parts(self, weight, parts)
        plain = stored.plain(self.beside)
        if plain is not None:
            return plain
        stored.only(self.roles, self.beside)
        numbers = self._numbers(stored)
        rows, columns = numbers.shape
        block = (
            self.block[0] if self.block[0] > 0 else rows,
            self.block[1] if self.block[1] > 0 else columns,
        )
        if not self.cut and columns % block[1]:
            stored.refuse(f"{columns} columns are not groups of {block[1]}")
        blocks = blocks_of((rows, columns), block)
        scale = self._scale(stored, blocks)
        zeros = self._zeros(stored, rows, blocks)
        order = self._order(stored, columns, block[1])
        if order is not None:
            scale, block = scale[:, order], (1, 1)
            zeros = None if zeros is None else zeros[:, order]
        if zeros is not None:
            for_blocks(numbers, zeros, block, zero=True)
        return for_blocks(numbers, scale, block)

    def _numbers(self, stored: Parts) -> torch.Tensor:
        """What is stored, float32 [out, in]."""
        if "weight" in self.roles:
            dtype = "int8" if self.kind == "int" else "float8_e4m3fn"
            return stored.matrix("weight", dtype).float()
        if self.kind == "float":
            return halves(stored.matrix("weight_packed", "uint8"), E2M1)
        packed = stored.matrix("weight_packed", "int32")
        shape = stored.tensor("weight_shape", ("int64", "int32"), (2,)).tolist()
        if list(packed.shape) != [shape[0], -(-shape[1] * self.bits // 32)]:
            stored.refuse(f"weight_shape says {shape}, which weight_packed does not hold")
        numbers = integers(packed, self.bits)[:, : shape[1]]
        return numbers.sub_(2 ** (self.bits - 1))

    def _scale(self, stored: Parts, blocks: tuple[int, int]) -> torch.Tensor:
        """Scales, float32 [blocks of rows, blocks of columns]."""
        name = "weight_scale"
        if self.roles in (MXFP4, MXFP8):
            return stored.powers(name, blocks)
        if self.roles == NVFP4:
            of_all = stored.tensor("weight_global_scale", ("float32",), (1,), ())
            scale = stored.tensor(name, ("float8_e4m3fn",), blocks)
            return scale.float() / of_all.reshape(())
        shapes = (blocks, (), (1,)) if self.block == (-1, -1) else (blocks,)
        return stored.tensor(name, PLAIN, *shapes).float().reshape(blocks)

    def _zeros(self, stored: Parts, rows: int, blocks: tuple[int, int]) -> torch.Tensor | None:
        """Zero points, float32 in the shape of the scales."""
        name = "weight_zero_point"
        if self.symmetric:
            if name in stored and bool(stored.tensors[name].any()):
                stored.refuse(f"declared symmetric, but {name} is not zero")
            return None
        if self.roles != PACKED:
            shapes = (blocks, (1,)) if blocks == (1, 1) else (blocks,)
            return stored.tensor(name, ("int8",), *shapes).float().reshape(blocks)
        packed = stored.tensor(name, ("int32",), (-(-rows * self.bits // 32), blocks[1]))
        numbers = integers(packed.T, self.bits)[:, :rows].T
        return numbers.sub_(2 ** (self.bits - 1))

    def _order(self, stored: Parts, columns: int, size: int) -> torch.Tensor | None:
        """The group of each column, where columns were grouped by their activations."""
        if "weight_g_idx" not in stored:
            return None
        groups = stored.tensor("weight_g_idx", ("int32", "int64"), (columns,)).long()
        if bool((groups == -1).all()):
            return None
        if int(groups.min()) < 0 or groups.bincount().tolist() != [size] * (columns // size):
            stored.refuse(f"weight_g_idx does not name groups of {size}")
        return groups


def read_compressed_tensors(settings: Mapping[str, Any]) -> CompressedTensors:
    """The form of this `quant_method`; raises `UnsupportedModel` for what is not known."""
    refuse_unknown(NAME, settings, KNOWN)
    sparsity = inner(NAME, settings, "sparsity_config").get("format", "dense")
    if sparsity != "dense":
        raise UnsupportedModel(f"weights stored by {NAME!r} as {sparsity!r} are not read")
    named = inner(NAME, settings, "config_groups")
    groups = [inner(NAME, named, name) for name in named]
    groups = [group for group in groups if inner(NAME, group, "weights")]
    said = {_said(group, group.get("format") or settings.get("format")) for group in groups}
    if len(said) != 1:
        raise UnsupportedModel(
            f"weights stored by {NAME!r} in several ways are not read: {len(said)} config groups "
            "with different weights"
            if said
            else f"weights stored by {NAME!r} are not read: no config group has weights"
        )
    asked = {activations_in_words(inner(NAME, group, "input_activations")) for group in groups} - {
        ""
    }
    words = with_cache(" or ".join(sorted(asked)), cache_in_words(settings.get("kv_cache_scheme")))
    return replace(said.pop(), asked=words)


def _said(group: Mapping[str, Any], form: object) -> CompressedTensors:
    """What a group says of how weights are stored."""
    if not isinstance(form, str) or form not in FORMATS:
        valid = ", ".join(FORMATS)
        raise UnsupportedModel(
            f"weights stored by {NAME!r} with format {form!r} are not read (read: {valid})"
        )
    weights: dict[str, Any] = {"num_bits": 8, "type": "int", "symmetric": True, "dynamic": False}
    weights |= {name: value for name, value in group["weights"].items() if value is not None}
    weights["type"] = str(weights["type"]).lower()
    size = weights.get("group_size")
    implied = "tensor" if size is None else "channel" if size == -1 else "group"
    weights = {"strategy": implied, **weights}
    roles, allowed = FORMATS[form]
    only: dict[str, tuple[Any, ...]] = {"strategy": STRATEGIES, **allowed}
    if roles == PACKED and not weights["symmetric"]:
        only["strategy"] = ("channel", "group")
    if weights["type"] == "float":
        only["symmetric"] = (True,)
    refuse_unknown(f"{NAME}, {form}", weights, {**WEIGHTS, **only})
    return CompressedTensors(
        roles,
        weights["type"],
        weights["num_bits"],
        symmetric=weights["symmetric"],
        block=_block(weights),
        cut=weights["strategy"] == "block",
    )


def _block(weights: Mapping[str, Any]) -> tuple[int, int]:
    """Rows and columns that share a scale; -1 for all."""
    strategy = weights["strategy"]
    if strategy in ("tensor", "channel"):
        return (-1 if strategy == "tensor" else 1), -1
    in_group = [1, weights.get("group_size")]
    block = weights.get("block_structure") if strategy == "block" else in_group
    if isinstance(block, str):  # As older versions wrote it, e.g. `128x128`.
        block = [int(size) for size in block.split("x") if size.isdecimal()]
    if not (
        isinstance(block, list)
        and len(block) == 2
        and all(type(size) is int and size > 0 for size in block)
    ):
        raise UnsupportedModel(
            f"weights stored by {NAME!r} with a scale for each {block} are not read: no two numbers"
        )
    return block[0], block[1]
