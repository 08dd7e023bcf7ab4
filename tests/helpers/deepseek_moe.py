"""DeepSeek-MoE (arXiv 2401.06066) plainly in float64, and checkpoints with its own names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from torch.nn import functional

Tensors = Mapping[str, torch.Tensor]

CONFIG: dict[str, Any] = {
    "architectures": ["DeepseekForCausalLM"],
    "attention_bias": False,
    "auto_map": {
        "AutoConfig": "configuration_deepseek.DeepseekConfig",
        "AutoModelForCausalLM": "modeling_deepseek.DeepseekForCausalLM",
    },
    "aux_loss_alpha": 0.001,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "first_k_dense_replace": 1,
    "hidden_act": "silu",
    "hidden_size": 32,
    "intermediate_size": 56,
    "max_position_embeddings": 64,
    "model_type": "deepseek",
    "moe_intermediate_size": 12,
    "moe_layer_freq": 1,
    "n_routed_experts": 8,
    "n_shared_experts": 2,
    "norm_topk_prob": False,
    "num_attention_heads": 4,
    "num_experts_per_tok": 3,
    "num_hidden_layers": 3,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "rope_scaling": None,
    "rope_theta": 5000,
    "scoring_func": "softmax",
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
    "vocab_size": 300,
}


def shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Every tensor of a checkpoint by its original name."""
    hidden, vocabulary = config["hidden_size"], config["vocab_size"]
    narrow = config["num_key_value_heads"] * hidden // config["num_attention_heads"]
    found: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (vocabulary, hidden),
        "model.norm.weight": (hidden,),
        "lm_head.weight": (vocabulary, hidden),
    }

    def feed_forward(prefix: str, inner: int) -> None:
        found[f"{prefix}.gate_proj.weight"] = (inner, hidden)
        found[f"{prefix}.up_proj.weight"] = (inner, hidden)
        found[f"{prefix}.down_proj.weight"] = (hidden, inner)

    for number in range(config["num_hidden_layers"]):
        layer = f"model.layers.{number}"
        found[f"{layer}.input_layernorm.weight"] = (hidden,)
        found[f"{layer}.post_attention_layernorm.weight"] = (hidden,)
        for name, rows in (("q", hidden), ("k", narrow), ("v", narrow), ("o", hidden)):
            found[f"{layer}.self_attn.{name}_proj.weight"] = (rows, hidden)
        if number < config["first_k_dense_replace"]:
            feed_forward(f"{layer}.mlp", config["intermediate_size"])
            continue
        inner = config["moe_intermediate_size"]
        found[f"{layer}.mlp.gate.weight"] = (config["n_routed_experts"], hidden)
        feed_forward(f"{layer}.mlp.shared_experts", config["n_shared_experts"] * inner)
        for expert in range(config["n_routed_experts"]):
            feed_forward(f"{layer}.mlp.experts.{expert}", inner)
    return found


def random_tensors(config: Mapping[str, Any], seed: int = 0) -> dict[str, torch.Tensor]:
    """float32 weights of a size that gives routers clear preferences."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(shape, generator=generator) * 0.3 + (len(shape) == 1)
        for name, shape in shapes(config).items()
    }


def write(directory: Path, config: Mapping[str, Any], tensors: Tensors, files: int = 3) -> Path:
    """Write a sharded checkpoint with an index, and a byte-level tokenizer."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config))
    names = list(tensors)
    where = {}
    for number in range(files):
        name = f"model-{number + 1:05d}-of-{files:05d}.safetensors"
        part = {each: tensors[each] for each in names[number::files]}
        save_file(part, directory / name, {"format": "pt"})
        where |= dict.fromkeys(part, name)
    index = {"metadata": {}, "weight_map": where}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    write_tokenizer(directory)
    return directory


def write_tokenizer(directory: Path) -> None:
    """As in the original: byte-level pieces under the name of a class of SentencePiece ones."""
    special = ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"]
    pieces = [*special, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE(dict(zip(pieces, range(300), strict=False)), []))
    tokenizer.add_special_tokens(special)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(directory / "tokenizer.json"))
    settings = {
        "add_bos_token": True,
        "add_eos_token": False,
        "bos_token": special[0],
        "eos_token": special[1],
        "tokenizer_class": "LlamaTokenizerFast",
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))


def logits(
    config: Mapping[str, Any], tensors: Tensors, ids: list[int], kept: Mapping[int, list[int]]
) -> torch.Tensor:
    """Return float64 [T, vocabulary]; `kept` are the experts that a layer still has, if not all."""
    weights = {name: tensor.double() for name, tensor in tensors.items()}
    hidden = weights["model.embed_tokens.weight"][ids]
    for number in range(config["num_hidden_layers"]):
        layer = f"model.layers.{number}"
        normed = _norm(hidden, weights[f"{layer}.input_layernorm.weight"], config)
        hidden = hidden + _attention(config, weights, f"{layer}.self_attn", normed)
        normed = _norm(hidden, weights[f"{layer}.post_attention_layernorm.weight"], config)
        if number < config["first_k_dense_replace"]:
            hidden = hidden + _feed_forward(weights, f"{layer}.mlp", normed)
        else:
            experts = kept.get(number, list(range(config["n_routed_experts"])))
            hidden = hidden + _mixture(config, weights, f"{layer}.mlp", normed, experts)
    return _norm(hidden, weights["model.norm.weight"], config) @ weights["lm_head.weight"].T


def _norm(x: torch.Tensor, weight: torch.Tensor, config: Mapping[str, Any]) -> torch.Tensor:
    return weight * x / (x.square().mean(dim=-1, keepdim=True) + config["rms_norm_eps"]).sqrt()


def _feed_forward(weights: Tensors, prefix: str, x: torch.Tensor) -> torch.Tensor:
    gate = x @ weights[f"{prefix}.gate_proj.weight"].T
    inner = gate * torch.sigmoid(gate) * (x @ weights[f"{prefix}.up_proj.weight"].T)
    return inner @ weights[f"{prefix}.down_proj.weight"].T


def _mixture(
    config: Mapping[str, Any], weights: Tensors, prefix: str, x: torch.Tensor, experts: list[int]
) -> torch.Tensor:
    output = _feed_forward(weights, f"{prefix}.shared_experts", x)
    for row, token in enumerate(x):
        affinity = torch.softmax(weights[f"{prefix}.gate.weight"][experts] @ token, dim=0)
        order = affinity.argsort(descending=True)[: config["num_experts_per_tok"]].tolist()
        total = affinity[order].sum() if config["norm_topk_prob"] else 1.0
        for place in order:
            expert = _feed_forward(weights, f"{prefix}.experts.{experts[place]}", token)
            output[row] += affinity[place] / total * expert
    return output


def _attention(
    config: Mapping[str, Any], weights: Tensors, prefix: str, x: torch.Tensor
) -> torch.Tensor:
    heads, size = config["num_attention_heads"], x.shape[1] // config["num_attention_heads"]
    query, key, value = (x @ weights[f"{prefix}.{name}_proj.weight"].T for name in "qkv")
    outputs = []
    for head in range(heads):
        group = head * config["num_key_value_heads"] // heads
        own = _rotated(query[:, head * size : (head + 1) * size], config["rope_theta"])
        shared = slice(group * size, (group + 1) * size)
        scores = own @ _rotated(key[:, shared], config["rope_theta"]).T / size**0.5
        later = torch.ones_like(scores, dtype=torch.bool).triu(1)
        share = functional.softmax(scores.masked_fill(later, float("-inf")), dim=-1)
        outputs.append(share @ value[:, shared])
    return torch.cat(outputs, dim=1) @ weights[f"{prefix}.o_proj.weight"].T


def _rotated(x: torch.Tensor, theta: float) -> torch.Tensor:
    """Dimensions i and i + size / 2 turn by the angle position * theta^(-2 i / size)."""
    half = x.shape[1] // 2
    frequency = theta ** (-torch.arange(half, dtype=torch.float64) / half)
    angle = torch.arange(len(x), dtype=torch.float64)[:, None] * frequency
    first, second = x[:, :half], x[:, half:]
    return torch.cat(
        [
            first * angle.cos() - second * angle.sin(),
            second * angle.cos() + first * angle.sin(),
        ],
        dim=1,
    )
