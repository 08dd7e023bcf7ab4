"""Checkpoints of bitsandbytes: nf4, fp4 and int8.

Four bits (`bitsandbytes/functional.py`, `QuantState`, `dequantize_4bit`): `weight` holds two
numbers a byte, the first in the upper half, in the order of the flattened matrix; a block of
them shares a scale, `weight.absmax`. `weight.quant_state.bitsandbytes__nf4` is JSON: type, shape,
size of blocks. With double quantisation absmax is in bytes, which stand for

    weight.nested_quant_map[byte] * weight.nested_absmax + nested_offset

Eight bits (`bitsandbytes/_ops.py`, `int8_vectorwise_dequant`): `weight` int8 [out, in] times `SCB`
[out] times 1 / 127. All is computed in float32, in this order, as the program does before
it rounds to the type that it computes in.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mbench.core.errors import UnsupportedModel
from mbench.moe.quantised.form import Form, Part, refuse_unknown
from mbench.moe.quantised.packing import halves
from mbench.moe.quantised.parts import Parts, by_last_word

if TYPE_CHECKING:
    import torch

TABLES = {
    "fp4": tuple(
        number / 12.0
        for sign in (1.0, -1.0)
        for number in (0.0, *(sign * each for each in (0.0625, 8.0, 12.0, 4.0, 6.0, 2.0, 3.0)))
    ),
    "nf4": (
        *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
        *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
        *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
        *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
    ),
}
"""What the 16 patterns of each type mean (`bitsandbytes/functional.py`, `get_4bit_type`)."""
OF_WEIGHT = ("absmax", "quant_map", "nested_absmax", "nested_quant_map")
STATE = "quant_state"
EIGHT = ("SCB", "weight_format")
ANY = (
    *("quant_method", "load_in_4bit", "load_in_8bit", "_load_in_4bit", "_load_in_8bit"),
    *("bnb_4bit_compute_dtype", "bnb_4bit_use_double_quant", "llm_int8_skip_modules"),
    *("llm_int8_enable_fp32_cpu_offload", "llm_int8_threshold"),
)
KNOWN: Mapping[str, tuple[Any, ...] | None] = {
    **dict.fromkeys(ANY),
    "bnb_4bit_quant_type": ("fp4", "nf4"),
    "bnb_4bit_quant_storage": ("uint8", "bfloat16", "float16", "float32", None),
    "llm_int8_has_fp16_weight": (False, None),
}


@dataclass(frozen=True)
class FourBits(Form):
    """Numbers of a table of 16, a scale per block of the flattened matrix."""

    kind: str
    """`nf4` or `fp4`."""
    storage: str
    """Type of the stored tensors, which is of no meaning."""

    @property
    def words(self) -> str:
        """E.g. `nf4 (bitsandbytes)`."""
        return f"{self.kind} (bitsandbytes)"

    @property
    def activations(self) -> str:
        """These types are of weights only."""
        return ""

    def part(self, name: str) -> Part:
        """Tell what a stored tensor is part of, by its name alone."""
        owner, found, role = name.rpartition(".weight.")
        if found and role in OF_WEIGHT:
            return Part(f"{owner}.weight", role)
        if found and role.startswith(f"{STATE}."):
            return Part(f"{owner}.weight", STATE)
        return by_last_word(name, ())

    def decode(self, weight: str, parts: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the weight, float32 in its own shape."""
        import torch

        stored = Parts(self, weight, parts)
        stored.only(("weight", STATE), OF_WEIGHT)
        said = self._said(stored)
        shape, size = said["shape"], said["blocksize"]
        count = math.prod(shape)
        packed = stored.tensor("weight", (self.storage,)).contiguous().view(-1).view(torch.uint8)
        if len(packed) != -(-count // 2):
            stored.refuse(f"{len(packed)} bytes do not hold the numbers of {shape}")
        table = torch.tensor(TABLES[self.kind], dtype=torch.float32, device=packed.device)
        if not torch.equal(stored.tensor("quant_map", ("float32",), (16,)), table):
            stored.refuse(f"quant_map is not that of {self.kind}")
        numbers = halves(packed, TABLES[self.kind], high_first=True)[:count]
        scales = self._scales(stored, said, -(-count // size))
        return _times(numbers, scales, size).reshape(shape)

    def _said(self, stored: Parts) -> dict[str, Any]:
        """What the state says in JSON."""
        state = stored.tensor(STATE, ("uint8",))
        try:
            said: dict[str, Any] = json.loads(bytes(state.flatten().tolist()))
        except ValueError:
            stored.refuse("the state is no JSON")
        if said.get("quant_type") != self.kind:
            stored.refuse(f"the state says {said.get('quant_type')!r}")
        nested = "nested_absmax" in stored
        sizes = [said.get("blocksize"), *([said.get("nested_blocksize")] if nested else [])]
        numbers = [*(said.get("shape") or [None]), *sizes]
        if not all(type(number) is int and number > 0 for number in numbers):
            stored.refuse("the state has no shape or no size of blocks")
        if nested and type(said.get("nested_offset")) is not float:
            stored.refuse("the state has no nested_offset")
        return said

    def _scales(self, stored: Parts, said: dict[str, Any], blocks: int) -> torch.Tensor:
        """The scale of each block, float32 [blocks]."""
        if "nested_absmax" not in stored:
            return stored.tensor("absmax", ("float32",), (blocks,))
        size = said["nested_blocksize"]
        byte = stored.tensor("absmax", ("uint8",), (blocks,))
        scale = stored.tensor("nested_absmax", ("float32",), (-(-blocks // size),))
        table = stored.tensor("nested_quant_map", ("float32",), (256,))
        offset: float = said["nested_offset"]
        return _times(table.index_select(0, byte.int()), scale, size) + offset


@dataclass(frozen=True)
class EightBits(Form):
    """Integers of eight bits with a scale per row."""

    threshold: float
    """Inputs that reach it are not quantised."""

    @property
    def words(self) -> str:
        """What is stored."""
        return "int8 per channel (bitsandbytes)"

    @property
    def activations(self) -> str:
        """What LLM.int8() does with activations."""
        return f"int8 per token, but columns with values from {self.threshold:g} on in 16 bits"

    def part(self, name: str) -> Part:
        """Tell what a stored tensor is part of, by its name alone."""
        return by_last_word(name, EIGHT)

    def decode(self, weight: str, parts: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the weight, float32 [out, in]."""
        stored = Parts(self, weight, parts)
        stored.only(("weight",), EIGHT)
        numbers = stored.matrix("weight", "int8")
        scale = stored.tensor("SCB", ("float32",), (len(numbers),))
        if "weight_format" in stored and bool(stored.tensors["weight_format"].any()):
            stored.refuse("only the weight_format 0, rows, is read")
        return numbers.float().mul_(scale.unsqueeze(1)).mul_(1 / 127)


def read_bitsandbytes(settings: Mapping[str, Any]) -> Form:
    """The form of `quant_method: bitsandbytes`; raises `UnsupportedModel` for what is not known."""
    refuse_unknown("bitsandbytes", settings, KNOWN)
    four, eight = (
        bool(settings.get(f"load_in_{bits}bit") or settings.get(f"_load_in_{bits}bit"))
        for bits in (4, 8)
    )
    if four == eight:
        raise UnsupportedModel(
            "weights stored by 'bitsandbytes': load_in_4bit or load_in_8bit must be true"
        )
    if eight:
        threshold = settings.get("llm_int8_threshold", 6.0)
        if type(threshold) not in (int, float):
            raise UnsupportedModel(
                f"weights stored by 'bitsandbytes' with llm_int8_threshold {threshold!r}: no number"
            )
        return EightBits(threshold)
    return FourBits(
        settings.get("bnb_4bit_quant_type", "fp4"),
        settings.get("bnb_4bit_quant_storage") or "uint8",
    )


def _times(numbers: torch.Tensor, scales: torch.Tensor, size: int) -> torch.Tensor:
    """Multiply blocks of a vector, the last perhaps cut off, in place by their scales."""
    whole = len(numbers) // size
    numbers[: whole * size].view(whole, size).mul_(scales[:whole, None])
    numbers[whole * size :].mul_(scales[whole:])
    return numbers
