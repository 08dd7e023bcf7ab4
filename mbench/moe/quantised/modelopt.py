"""Checkpoints that NVIDIA's Model Optimizer exports in NVFP4 or FP8.

What a layer's tensors mean is said by the program (`modelopt/torch/quantization/qtensor/`,
`nvfp4_tensor.py` and `fp8_tensor.py`, `dequantize`; names: `modelopt/torch/export/quant_utils.py`):

    NVFP4 weight uint8 [out, in / 2], weight_scale FP8 [out, in / 16], weight_scale_2 []:
          FP4 * (weight_scale * weight_scale_2)
    FP8   weight FP8 [out, in], weight_scale []: weight * weight_scale
    FP8_PER_CHANNEL_PER_TOKEN: likewise, weight_scale [out]

computed in float32. Settings stand in config.json, in older exports in hf_quant_config.json
under `quantization`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mbench.core.errors import UnsupportedModel
from mbench.moe.quantised.form import Form, Part, refuse_unknown
from mbench.moe.quantised.packing import E2M1, for_blocks, halves
from mbench.moe.quantised.parts import Parts, by_last_word
from mbench.moe.quantised.settings import with_cache

if TYPE_CHECKING:
    import torch

FP4 = {"NVFP4": "FP4 in groups of 16", "W4A16_NVFP4": ""}
FP8 = {"FP8": "FP8 per tensor", "FP8_PER_CHANNEL_PER_TOKEN": "FP8 per token"}
"""What each algorithm asks of activations."""
ROLES = ("weight", "weight_scale", "weight_scale_2")
BESIDE = ("input_scale", "output_scale", "k_scale", "v_scale")
"""Roles of what concerns activations, and the cache of keys and values."""
OTHER = ("pre_quant_scale", "k_bias", "v_bias")
"""Roles that none of these algorithms has."""
FUSED = ("gate_up_proj", "down_proj")
SAID: Mapping[str, tuple[Any, ...] | None] = {
    **dict.fromkeys(("quant_method", "producer", "exclude_modules", "ignore", "config_groups")),
    **dict.fromkeys(("kv_cache_quant_algo", "kv_cache_scheme", "quant_type")),
    "quant_algo": (*FP4, *FP8),
    "group_size": None,
}
KNOWN: Mapping[str, tuple[Any, ...] | None] = {**SAID, "quantization": None}


@dataclass(frozen=True)
class Modelopt(Form):
    """One algorithm for every quantised layer."""

    algorithm: str
    asked: str
    """Of activations."""

    @property
    def words(self) -> str:
        """E.g. `NVFP4 (modelopt)`."""
        shared = "per tensor" if self.algorithm == "FP8" else "per channel"
        return f"{'NVFP4' if self.algorithm in FP4 else f'FP8 {shared}'} (modelopt)"

    @property
    def activations(self) -> str:
        """E.g. `FP8 per tensor`."""
        return self.asked

    def part(self, name: str) -> Part:
        """Tell what a stored tensor is part of, by its name alone."""
        for fused in FUSED:
            owner, found, role = name.rpartition(f".{fused}_")
            if found and role in (*ROLES, *BESIDE):
                return Part(f"{owner}.{fused}", role)
        return by_last_word(name, (*ROLES, *BESIDE, *OTHER))

    def decode(self, weight: str, parts: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the weight, float32 [out, in]."""
        stored = Parts(self, weight, parts)
        if weight.endswith(FUSED):
            stored.refuse("experts in one tensor are not read in this form")
        stored.only(ROLES, BESIDE)
        plain = stored.plain(BESIDE)
        if plain is not None:
            return plain
        if self.algorithm in FP4:
            packed = stored.matrix("weight", "uint8")
            rows, columns = packed.shape[0], packed.shape[1] * 2
            if columns % 16:
                stored.refuse(f"{columns} columns are not groups of 16")
            scale = stored.tensor("weight_scale", ("float8_e4m3fn",), (rows, columns // 16))
            of_all = stored.tensor("weight_scale_2", ("float32",), (), (1,)).reshape(())
            return for_blocks(halves(packed, E2M1), scale.float() * of_all, (1, 16))
        numbers = stored.matrix("weight", "float8_e4m3fn").float()
        if "weight_scale_2" in stored:
            stored.refuse("weight_scale_2 has no meaning")
        rows, columns = numbers.shape
        if self.algorithm == "FP8":
            scale = stored.tensor("weight_scale", ("float32", "bfloat16"), (), (1,))
            return for_blocks(numbers, scale.float().reshape(1, 1), (rows, columns))
        scale = stored.tensor("weight_scale", ("float32", "bfloat16"), (rows,), (rows, 1))
        return for_blocks(numbers, scale.float().reshape(rows, 1), (1, columns))


def read_modelopt(settings: Mapping[str, Any]) -> Modelopt:
    """The form of `quant_method: modelopt`; raises `UnsupportedModel` for what is not known."""
    said = settings
    if "quantization" in settings:
        refuse_unknown("modelopt", {**settings, "quant_algo": "FP8"}, KNOWN)
        said = settings["quantization"]
    refuse_unknown("modelopt", {"quant_algo": None, **said}, SAID)
    algorithm = said["quant_algo"]
    groups = [each.get("weights") or {} for each in (said.get("config_groups") or {}).values()]
    sizes = {said.get("group_size"), *(each.get("group_size") for each in groups)} - {None, 16}
    if algorithm in FP4 and sizes:
        raise UnsupportedModel(
            f"weights stored by 'modelopt' in {algorithm} in groups of {sizes.pop()} are not read"
        )
    cache = said.get("kv_cache_scheme") or said.get("kv_cache_quant_algo")
    return Modelopt(algorithm, with_cache((FP4 | FP8)[algorithm], cache))
