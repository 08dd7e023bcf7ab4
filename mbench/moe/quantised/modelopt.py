"""Checkpoints that NVIDIA's Model Optimizer exports in NVFP4, FP8, MXFP8, or several of them.

What a layer's tensors mean is said by the program (`modelopt/torch/quantization/qtensor/`,
`nvfp4_tensor.py`, `fp8_tensor.py`, `mxfp8_tensor.py`, each `dequantize`; names:
`modelopt/torch/export/quant_utils.py`):

    NVFP4 weight uint8 [out, in / 2], weight_scale FP8 [out, in / 16], weight_scale_2 []:
          FP4 * (weight_scale * weight_scale_2)
    FP8   weight FP8 [out, in], weight_scale []: weight * weight_scale
    FP8_PER_CHANNEL_PER_TOKEN: likewise, weight_scale [out]
    MXFP8 likewise, weight_scale uint8 [out, in / 32], the exponent of a power of two, 127 added

computed in float32. MIXED_PRECISION has an algorithm for each layer, or for a module and all
layers in it, under `quantized_layers`. Settings stand in config.json, in older exports in
hf_quant_config.json under `quantization`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mbench.core.errors import UnsupportedModel
from mbench.moe.quantised.form import Form, Part, refuse_unknown
from mbench.moe.quantised.packing import E2M1, for_blocks, halves
from mbench.moe.quantised.parts import Parts, by_last_word
from mbench.moe.quantised.settings import cache_in_words, inner, with_cache

if TYPE_CHECKING:
    import torch

ALGORITHMS = {
    "NVFP4": ("NVFP4", "FP4 in groups of 16"),
    "W4A16_NVFP4": ("NVFP4", ""),
    "FP8": ("FP8 per tensor", "FP8 per tensor"),
    "FP8_PER_CHANNEL_PER_TOKEN": ("FP8 per channel", "FP8 per token"),
    "MXFP8": ("MXFP8", "MXFP8"),
}
"""What each stores, and what it asks of activations."""
MIXED = "MIXED_PRECISION"
ROLES = ("weight", "weight_scale", "weight_scale_2")
BESIDE = ("input_scale", "output_scale", "k_scale", "v_scale")
"""Roles of what concerns activations, and the cache of keys and values."""
OTHER = ("pre_quant_scale", "k_bias", "v_bias")
"""Roles that none of these algorithms has."""
FUSED = ("gate_up_proj", "down_proj")
SAID: Mapping[str, tuple[Any, ...] | None] = {
    **dict.fromkeys(("quant_method", "producer", "exclude_modules", "ignore", "config_groups")),
    **dict.fromkeys(("kv_cache_quant_algo", "kv_cache_scheme", "quant_type", "group_size")),
    "quant_algo": (*ALGORITHMS, MIXED),
    "quantized_layers": None,
}
KNOWN: Mapping[str, tuple[Any, ...] | None] = {**SAID, "quantization": None}
OF_LAYER = {"quant_algo": tuple(ALGORITHMS), "group_size": None}


@dataclass(frozen=True)
class Modelopt(Form):
    """An algorithm for every quantised layer, or for each one of its own."""

    algorithm: str
    """`MIXED_PRECISION` where layers differ."""
    layers: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Module -> its algorithm, where layers differ."""
    cache: str = ""
    """What is asked of the cache of keys and values."""

    @property
    def words(self) -> str:
        """E.g. `NVFP4 and FP8 per tensor (modelopt)`."""
        return f"{' and '.join(self._told(0))} (modelopt)"

    @property
    def activations(self) -> str:
        """E.g. `FP8 per tensor`."""
        return with_cache(" or ".join(filter(None, self._told(1))), self.cache)

    def _told(self, what: int) -> list[str]:
        used = dict.fromkeys(sorted(self.layers.values()) or [self.algorithm])
        return list(dict.fromkeys(ALGORITHMS[algorithm][what] for algorithm in used))

    @property
    def beside(self) -> Collection[str]:
        """Of activations and of the cache of keys and values."""
        return BESIDE

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
        algorithm = self._algorithm(stored)
        if ALGORITHMS[algorithm][0] == "NVFP4":
            numbers = halves(stored.matrix("weight", "uint8"), E2M1)
            of_all = stored.tensor("weight_scale_2", ("float32",), (), (1,)).reshape(())
            blocks = _groups(stored, numbers, 16)
            scale = stored.tensor("weight_scale", ("float8_e4m3fn",), blocks)
            return for_blocks(numbers, scale.float() * of_all, (1, 16))
        numbers = stored.matrix("weight", "float8_e4m3fn").float()
        if "weight_scale_2" in stored:
            stored.refuse("weight_scale_2 has no meaning")
        rows, columns = numbers.shape
        if algorithm == "MXFP8":
            scale = stored.powers("weight_scale", _groups(stored, numbers, 32))
            return for_blocks(numbers, scale, (1, 32))
        if algorithm == "FP8":
            scale = stored.tensor("weight_scale", ("float32", "bfloat16"), (), (1,))
            return for_blocks(numbers, scale.float().reshape(1, 1), (rows, columns))
        scale = stored.tensor("weight_scale", ("float32", "bfloat16"), (rows,), (rows, 1))
        return for_blocks(numbers, scale.float().reshape(rows, 1), (1, columns))

    def _algorithm(self, stored: Parts) -> str:
        """The algorithm of the layer, or of the innermost module around it that has one."""
        if self.algorithm != MIXED:
            return self.algorithm
        module = stored.weight.rpartition(".")[0]
        while module not in self.layers:
            if not module:
                stored.refuse("quantized_layers names neither this layer nor a module around it")
            module = module.rpartition(".")[0]
        return self.layers[module]


def _groups(stored: Parts, numbers: torch.Tensor, size: int) -> tuple[int, int]:
    """How many groups of columns share a scale."""
    rows, columns = numbers.shape
    if columns % size:
        stored.refuse(f"{columns} columns are not groups of {size}")
    return rows, columns // size


def read_modelopt(settings: Mapping[str, Any]) -> Modelopt:
    """The form of `quant_method: modelopt`; raises `UnsupportedModel` for what is not known."""
    said = settings
    if "quantization" in settings:
        refuse_unknown("modelopt", settings, KNOWN)
        said = inner("modelopt", settings, "quantization")
    refuse_unknown("modelopt", {"quant_algo": None, **said}, SAID)
    algorithm = said["quant_algo"]
    layers: dict[str, str] = {}
    if algorithm == MIXED:
        named = inner("modelopt", said, "quantized_layers")
        for name in named:
            layer = {"quant_algo": None, **inner("modelopt", named, name)}
            refuse_unknown("modelopt", layer, OF_LAYER)
            layers[name] = layer["quant_algo"]
            _check_group_size(layers[name], layer.get("group_size"))
        if not layers:
            raise UnsupportedModel(f"weights stored by 'modelopt' in {MIXED}, but in no layer")
    else:
        groups = inner("modelopt", said, "config_groups")
        weights = (inner("modelopt", inner("modelopt", groups, name), "weights") for name in groups)
        for each in (said, *weights):
            _check_group_size(algorithm, each.get("group_size"))
    cache = said.get("kv_cache_scheme") or said.get("kv_cache_quant_algo")
    return Modelopt(algorithm, layers, cache_in_words(cache))


def _check_group_size(algorithm: str, size: object) -> None:
    own = {"NVFP4": 16, "W4A16_NVFP4": 16, "MXFP8": 32}.get(algorithm)
    if own and size not in (None, own):
        raise UnsupportedModel(
            f"weights stored by 'modelopt' in {algorithm} in groups of {size} are not read, only"
            f" of {own}"
        )
