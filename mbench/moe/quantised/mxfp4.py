"""MXFP4 experts as gpt-oss stores them: 4-bit numbers, 32 of which share a power of two.

The number format is E2M1 with scales in E8M0, by the OCP Microscaling Formats (MX) specification
1.0, sections 5.3.3 and 5.4.1. gpt-oss stores a layer's experts as `..._blocks` uint8 [N, rows,
groups, 16], the lower half of a byte first, and `..._scales` uint8 [N, rows, groups]
(github.com/openai/gpt-oss, gpt_oss/torch/weights.py); the unquantised weight of transformers is
[N, groups * 32, rows].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from mbench.moe.quantised.form import Form, Part, refuse_unknown

KNOWN: Mapping[str, tuple[Any, ...] | None] = {
    "quant_method": ("mxfp4",),
    "modules_to_not_convert": None,
    "dequantize": None,
}
E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
"""The numbers of the codes 0 to 7; those of 8 to 15 are the same below zero."""
ROLES = ("blocks", "scales")
NO_NUMBER = 255
"""The scale that stands for none."""


@dataclass(frozen=True)
class Mxfp4(Form):
    """Experts of a layer in one tensor of codes and one of scales; see above."""

    @property
    def words(self) -> str:
        """As it is called."""
        return "MXFP4"

    @property
    def activations(self) -> str:
        """It asks for nothing."""
        return ""

    def part(self, name: str) -> Part:
        """`gate_up_proj_blocks` is part of `gate_up_proj`."""
        weight, _, role = name.rpartition("_")
        return Part(weight, role) if role in ROLES else Part(name, name.rpartition(".")[2])

    def pieces(
        self, weight: str, parts: Mapping[str, torch.Tensor]
    ) -> Sequence[Mapping[str, torch.Tensor]]:
        """Expert by expert: a layer's are most of the layer."""
        self._check(weight, parts)
        experts = range(len(parts["blocks"]))
        return [{role: parts[role][each : each + 1] for role in ROLES} for each in experts]

    def decode(self, weight: str, parts: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Numbers of the codes times powers of two; see the base class."""
        self._check(weight, parts)
        codes, scales = parts["blocks"], parts["scales"].to(torch.int32)
        if (scales == NO_NUMBER).any():
            raise self.refusal(weight, parts, "a scale of 255 is no number")
        table = torch.tensor([*E2M1, *(-number for number in E2M1)], device=codes.device)
        # A scale is the exponent of a float32 but for the smallest, which has none.
        smallest = torch.full_like(scales, 1 << 22)
        powers = torch.where(scales == 0, smallest, scales << 23).view(torch.float32)
        halves = torch.stack((codes & 15, codes >> 4), -1).flatten(-2)
        numbers = table[halves.to(torch.int32)].mul_(powers.unsqueeze(-1))
        return numbers.flatten(-2).transpose(1, 2).contiguous()

    def _check(self, weight: str, parts: Mapping[str, torch.Tensor]) -> None:
        if set(parts) != set(ROLES):
            raise self.refusal(weight, parts, f"it needs {' and '.join(ROLES)}, and nothing else")
        blocks, scales = parts["blocks"], parts["scales"]
        if blocks.dtype != torch.uint8 or scales.dtype != torch.uint8:
            raise self.refusal(weight, parts, "both must be in uint8")
        if blocks.dim() != 4 or blocks.shape[3] != 16 or blocks.shape[:3] != scales.shape:
            raise self.refusal(
                weight, parts, "blocks must be [experts, rows, groups, 16], scales the same less 16"
            )


def read_mxfp4(settings: Mapping[str, Any]) -> Mxfp4:
    """The form of `quant_method: mxfp4`; raises `UnsupportedModel` for what is not known."""
    refuse_unknown("mxfp4", settings, KNOWN)
    return Mxfp4()
