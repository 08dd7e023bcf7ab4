"""Tiny checkpoints in the published stored forms, each beside a twin of plain numbers.

A twin has the same tensors, those that are stored in fewer bits as the numbers that they mean by
the form's definition: computed here in float64 and written in float32, so that one twin serves for
every dtype. What numbers a form can hold is chosen here as badly as it likes: only what is stored
counts.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import (
    DeepseekV3Config,
    DeepseekV3ForCausalLM,
    GptOssConfig,
    GptOssForCausalLM,
    PreTrainedModel,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from helpers import packed_forms as packed
from helpers.tiny_models import COMMON, randomised, save

Stored = tuple[dict[str, torch.Tensor], torch.Tensor]
"""What is stored for a weight, by what is added to its name without `weight`; its numbers, float64.
"""

NOT_STORED = ("embed_tokens", "lm_head", "norm", "mlp.gate.", "router")


def qwen3(**changes: Any) -> PreTrainedModel:
    """With matrices of 192 rows, and of 160 columns: the last block of 128 is cut off."""
    values = {"hidden_size": 160, "head_dim": 32, "intermediate_size": 48}
    values |= {"num_experts": 8, "moe_intermediate_size": 192, "norm_topk_prob": True}
    return randomised(Qwen3MoeForCausalLM(Qwen3MoeConfig(**COMMON | values | changes)))


def deepseek(**changes: Any) -> PreTrainedModel:
    """DeepSeek-V3 with its published 576 rows of compressed keys and values."""
    values: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 48}
    values |= {"moe_intermediate_size": 32, "n_routed_experts": 8, "n_shared_experts": 1}
    values |= {"n_group": 2, "topk_group": 1, "first_k_dense_replace": 1}
    values |= {"q_lora_rank": 24, "kv_lora_rank": 512, "qk_rope_head_dim": 64}
    values |= {"qk_nope_head_dim": 16, "v_head_dim": 16, "num_key_value_heads": 4}
    return randomised(DeepseekV3ForCausalLM(DeepseekV3Config(**COMMON | values | changes)))


def gpt_oss(**changes: Any) -> PreTrainedModel:
    """With 2 groups of 32 numbers in a row."""
    values = {"hidden_size": 64, "intermediate_size": 64, "head_dim": 16, "num_local_experts": 8}
    return randomised(GptOssForCausalLM(GptOssConfig(**COMMON | values | changes)))


def fp8_blocks(
    weight: torch.Tensor, block: int = 128, dtype: torch.dtype = torch.float32
) -> Stored:
    """[R, C] in E4M3 with a scale for each square of `block`, the last ones cut off."""
    rows, columns = weight.shape
    scales = torch.empty(-(-rows // block), -(-columns // block), dtype=dtype)
    stored = torch.empty(rows, columns, dtype=torch.float8_e4m3fn)
    numbers = torch.empty(rows, columns, dtype=torch.float64)
    for i in range(scales.shape[0]):
        for j in range(scales.shape[1]):
            part = (
                slice(i * block, min(rows, (i + 1) * block)),
                slice(j * block, min(columns, (j + 1) * block)),
            )
            scales[i, j] = weight[part].abs().max() / 448 + 1e-8
            stored[part] = (weight[part] / scales[i, j].float()).to(torch.float8_e4m3fn)
            numbers[part] = stored[part].to(torch.float64) * scales[i, j].to(torch.float64)
    return {"weight": stored, "weight_scale_inv": scales}, numbers


def fp8_whole(weight: torch.Tensor) -> Stored:
    """[R, C] in E4M3 with one scale, and one for activations."""
    scale = weight.abs().max() / 448
    stored = (weight / scale).to(torch.float8_e4m3fn)
    tensors = {"weight": stored, "weight_scale": scale, "input_scale": torch.tensor(0.5)}
    return tensors, stored.to(torch.float64) * scale.to(torch.float64)


MX_NUMBERS = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6], dtype=torch.float64)


def mxfp4(weight: torch.Tensor) -> Stored:
    """[N, C, R] as codes [N, R, C / 32, 16] and exponents [N, R, C / 32]."""
    groups = weight.transpose(1, 2).to(torch.float64).unflatten(2, (-1, 32))
    exponents = (groups.abs().amax(-1) + 1e-9).log2().floor() - 2
    scaled = groups / 2 ** exponents.unsqueeze(-1)
    nearest = torch.bucketize(scaled.abs().contiguous(), (MX_NUMBERS[1:] + MX_NUMBERS[:-1]) / 2)
    codes = (nearest + 8 * (scaled < 0)).to(torch.uint8)
    numbers = MX_NUMBERS[nearest] * torch.where(scaled < 0, -1, 1) * 2 ** exponents.unsqueeze(-1)
    tensors = {
        "_blocks": codes[..., 0::2] + 16 * codes[..., 1::2],
        "_scales": (exponents + 127).to(torch.uint8),
    }
    return tensors, numbers.flatten(2).transpose(1, 2)


def _block_of_compressed_tensors(weight: torch.Tensor) -> Stored:
    parts, numbers = fp8_blocks(weight)
    return {"weight": parts["weight"], "weight_scale": parts["weight_scale_inv"]}, numbers


FP8 = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic"}


@dataclass(frozen=True)
class Kind:
    """A published form of a family."""

    model: Callable[..., PreTrainedModel]
    store: Callable[[torch.Tensor], Stored]
    """What is stored for one weight, given in float32."""
    settings: Mapping[str, Any]
    """Its `quantization_config`."""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Of the model's configuration."""
    not_stored: tuple[str, ...] = NOT_STORED
    """What names of weights that stay plain contain."""
    beside: tuple[str, ...] = ()
    """Names of scales that are of no weight."""


SMALL = {"moe_intermediate_size": 24, "hidden_size": 40}
KINDS: dict[str, Kind] = {
    "qwen3-fp8": Kind(qwen3, fp8_blocks, FP8 | {"weight_block_size": [128, 128]}),
    "qwen3-fp8-bf16-scales": Kind(
        qwen3,
        lambda weight: fp8_blocks(weight, 16, torch.bfloat16),
        FP8 | {"weight_block_size": [16, 16], "modules_to_not_convert": ["lm_head"]},
        SMALL,
    ),
    "qwen3-fp8-whole": Kind(qwen3, fp8_whole, FP8 | {"activation_scheme": "static"}),
    "deepseek-fp8": Kind(deepseek, fp8_blocks, FP8 | {"weight_block_size": [128, 128]}),
    "gpt-oss-mxfp4": Kind(
        gpt_oss, mxfp4, {"quant_method": "mxfp4"}, not_stored=(*NOT_STORED, "self_attn")
    ),
    "ct-fp8-channel": Kind(
        qwen3,
        lambda weight: packed.fp8(weight, "channel"),
        packed.ct_settings("float-quantized", type="float", strategy="channel"),
    ),
    "ct-fp8-tensor": Kind(
        qwen3,
        lambda weight: packed.fp8(weight, "tensor"),
        packed.ct_settings("naive-quantized", type="float", strategy="tensor"),
    ),
    "ct-fp8-block": Kind(
        qwen3,
        _block_of_compressed_tensors,
        packed.ct_settings(
            "float-quantized", type="float", strategy="block", block_structure=[128, 128]
        ),
    ),
    "ct-int8": Kind(
        qwen3,
        packed.int8,
        packed.ct_settings("int-quantized", strategy="channel", symmetric=False),
    ),
    "ct-int4": Kind(
        qwen3,
        lambda weight: packed.packed(weight, 4, 32),
        packed.ct_settings("pack-quantized", num_bits=4, strategy="group", group_size=32),
    ),
    "ct-int8-zeros": Kind(
        qwen3,
        lambda weight: packed.packed(weight, 8, 16, symmetric=False),
        packed.ct_settings("pack-quantized", strategy="group", group_size=16, symmetric=False),
    ),
    "ct-nvfp4": Kind(
        qwen3,
        lambda weight: packed.nvfp4(weight, "compressed-tensors"),
        packed.ct_settings(
            "nvfp4-pack-quantized",
            **{"type": "float", "num_bits": 4, "strategy": "tensor_group", "group_size": 16},
        ),
    ),
    "modelopt-nvfp4": Kind(
        qwen3,
        lambda weight: packed.nvfp4(weight, "modelopt"),
        {"quant_method": "modelopt", "quant_algo": "NVFP4", "ignore": ["lm_head"]},
    ),
    "modelopt-fp8": Kind(
        qwen3, packed.modelopt_fp8, {"quant_method": "modelopt", "quant_algo": "FP8"}
    ),
    "modelopt-deepseek": Kind(
        deepseek,
        packed.modelopt_fp8,
        {"quant_method": "modelopt", "quant_algo": "FP8", "kv_cache_quant_algo": "FP8"},
        beside=("model.layers.0.self_attn.k_proj.k_scale",),
    ),
    "gptq": Kind(
        qwen3,
        lambda weight: packed.gptq(weight, 4, 48, ordered=True, offset=1),
        {"quant_method": "gptq", "bits": 4, "group_size": 48, "sym": False, "desc_act": False},
    ),
    "gptq-v2-mixed": Kind(
        qwen3,
        lambda weight: packed.gptq(weight, 8, 32, ordered=False, offset=0),
        {"quant_method": "gptq", "bits": 8, "group_size": 32, "sym": False, "desc_act": True}
        | {"checkpoint_format": "gptq_v2"},
    ),
    "awq": Kind(
        qwen3,
        lambda weight: packed.awq(weight, 32),
        {"quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": True}
        | {"version": "gemm", "modules_to_not_convert": ["lm_head"]},
    ),
    "bnb-nf4": Kind(
        qwen3,
        lambda weight: packed.bitsandbytes(weight, "nf4", 64, nested=True),
        {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
        SMALL,
    ),
    "bnb-fp4": Kind(
        qwen3,
        lambda weight: packed.bitsandbytes(weight, "fp4", 128, nested=False),
        {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "fp4"},
        SMALL,
    ),
    "bnb-int8": Kind(
        qwen3,
        packed.bitsandbytes_int8,
        {"quant_method": "bitsandbytes", "load_in_8bit": True, "llm_int8_threshold": 6.0},
    ),
}
"""By name; each must be read."""


def write_pair(
    kind: str | Kind, folder: Path, *, apart: bool = False, **changes: Any
) -> tuple[Path, Path]:
    """Write a checkpoint in a stored form and its twin; `changes` are of the configuration.

    With `apart`, everything but the stored numbers themselves (scales, ...) is in a second file.
    """
    kind = KINDS[kind] if isinstance(kind, str) else kind
    model = kind.model(**{**kind.changes, **changes}).to(torch.bfloat16)
    quantised, twin = folder / "quantised", folder / "twin"
    for place in (quantised, twin):
        save(model, place)
    tensors = load_file(twin / "model.safetensors")
    first: dict[str, torch.Tensor] = {}
    others: dict[str, torch.Tensor] = {}
    for name, tensor in sorted(tensors.items()):
        is_stored = tensor.dim() == 3 or (tensor.dim() == 2 and name.endswith(".weight"))
        if not is_stored or any(word in name for word in kind.not_stored):
            first[name] = tensor
            continue
        parts, numbers = kind.store(tensor.float())
        for place, (end, part) in enumerate(parts.items()):
            stored = first if place == 0 or not apart else others
            stored[name.removesuffix("weight") + end] = part.contiguous()
        tensors[name] = numbers.to(torch.float32).contiguous()
    first |= {name: torch.tensor(0.5) for name in kind.beside}
    save_file(tensors, twin / "model.safetensors", {"format": "pt"})
    (quantised / "model.safetensors").unlink()
    _write_shards(quantised, [first, others] if apart else [first])
    config = json.loads((quantised / "config.json").read_text())
    config["quantization_config"] = dict(kind.settings)
    (quantised / "config.json").write_text(json.dumps(config))
    return quantised, twin


def _write_shards(folder: Path, shards: list[dict[str, torch.Tensor]]) -> None:
    if len(shards) == 1:
        save_file(shards[0], folder / "model.safetensors", {"format": "pt"})
        return
    names = [f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors" for i in range(len(shards))]
    for name, shard in zip(names, shards, strict=True):
        save_file(shard, folder / name, {"format": "pt"})
    weight_map = {
        tensor: name for name, shard in zip(names, shards, strict=True) for tensor in shard
    }
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
