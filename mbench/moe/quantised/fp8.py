"""FP8 weights (E4M3) with a scale for each block, or one for all: DeepSeek-V3, Qwen3-FP8.

A number is the stored one times its block's scale, in float32, as DeepSeek's own kernel has it
(github.com/deepseek-ai/DeepSeek-V3, inference/kernel.py: `weight_dequant`); whatever their name
says, scales are multiplied. The last block of a dimension may be cut off.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from mbench.core.errors import UnsupportedModel
from mbench.moe.quantised.form import Form, Part, refuse_unknown

KNOWN: Mapping[str, tuple[Any, ...] | None] = {
    "quant_method": ("fp8",),
    "fmt": ("e4m3", "float8_e4m3fn", None),
    "activation_scheme": ("dynamic", "static", None),
    "scale_fmt": ("ue8m0", "float", None),
    "weight_block_size": None,
    # Which weights are stored as plain numbers, their tensors say themselves.
    "modules_to_not_convert": None,
    "ignored_layers": None,
    "dequantize": None,
}
SCALES = ("weight_scale_inv", "weight_scale")
OF_ACTIVATIONS = ("input_scale", "activation_scale")
SCALE_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Fp8(Form):
    """Matrices in E4M3; see above."""

    block: tuple[int, int] | None
    """Rows and columns that share a scale; None: all do."""
    scheme: str | None
    """How activations would be quantised."""
    powers: bool = False
    """Whether scales may be stored as powers of two (E8M0)."""

    @property
    def words(self) -> str:
        """E.g. `FP8 128x128`."""
        return "FP8 {}x{}".format(*self.block) if self.block else "FP8 with one scale a matrix"

    @property
    def activations(self) -> str:
        """E.g. `dynamic FP8`."""
        return f"{self.scheme} FP8" if self.scheme else ""

    def part(self, name: str) -> Part:
        """Scales lie beside their weight."""
        module, _, role = name.rpartition(".")
        return Part(f"{module}.weight" if role in (*SCALES, *OF_ACTIVATIONS) else name, role)

    def decode(self, weight: str, parts: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Stored numbers times scales; see the base class."""
        stored, scales = self.checked(weight, parts)
        return scaled(stored, scales.reshape(self.scale_shape(stored.shape)), self.block)

    def scale_shape(self, shape: Sequence[int]) -> tuple[int, int]:
        """Rows and columns of the scales of a matrix."""
        block = self.block or shape
        return -(-shape[0] // block[0]), -(-shape[1] // block[1])

    def checked(
        self, weight: str, parts: Mapping[str, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The stored matrix and its scales, if they are what the form says; raises as `decode`."""
        named = [role for role in SCALES if role in parts]
        if "weight" not in parts:
            raise self.refusal(weight, parts, "scales without a weight")
        if len(named) != 1:
            raise self.refusal(weight, parts, f"it needs one of {' and '.join(SCALES)}")
        stored, scales = parts["weight"], parts[named[0]]
        if stored.dtype != torch.float8_e4m3fn or stored.dim() != 2:
            raise self.refusal(weight, parts, "it must be a matrix in float8_e4m3fn")
        if scales.dtype not in SCALE_DTYPES and not (
            self.powers and scales.dtype == torch.float8_e8m0fnu
        ):
            raise self.refusal(weight, parts, "scales must be floating numbers")
        if self.block is None:
            if scales.numel() != 1:
                raise self.refusal(weight, parts, "it needs one scale")
        else:
            shape = self.scale_shape(stored.shape)
            if scales.shape != shape:
                raise self.refusal(weight, parts, f"blocks of this size need scales {list(shape)}")
        return stored, scales


def scaled(
    codes: torch.Tensor, scales: torch.Tensor, block: tuple[int, int] | None
) -> torch.Tensor:
    """Numbers [..., R, C] in float32 of codes, with scales [..., r, c] for blocks; None: of all."""
    numbers = codes.to(torch.float32)
    rows, columns = codes.shape[-2:]
    scales = scales.to(torch.float32)
    if block is not None and scales.shape[-1] > 1:
        scales = scales.repeat_interleave(block[1], -1)[..., :columns]
    if block is not None and scales.shape[-2] > 1:
        scales = scales.repeat_interleave(block[0], -2)[..., :rows, :]
    return numbers.mul_(scales)


def read_fp8(settings: Mapping[str, Any]) -> Fp8:
    """The form of `quant_method: fp8`; raises `UnsupportedModel` for what is not known."""
    refuse_unknown("fp8", settings, KNOWN)
    block = settings.get("weight_block_size")
    if block is not None and not (
        isinstance(block, list | tuple)
        and len(block) == 2
        and all(type(step) is int and step > 0 for step in block)
    ):
        raise UnsupportedModel(
            f"weights stored by 'fp8' with weight_block_size {block!r}: it must be two numbers"
        )
    return Fp8(
        (block[0], block[1]) if block else None,
        settings.get("activation_scheme"),
        powers=settings.get("scale_fmt") == "ue8m0",
    )
