"""Random Mixture-of-Experts models that are small enough to be checked against slow oracles."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import (
    MixtralConfig,
    MixtralForCausalLM,
    OlmoeConfig,
    OlmoeForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2MoeConfig,
    Qwen2MoeForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from mbench.moe.calibration import TokenSequences

VOCABULARY = 64
COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_experts_per_tok": 3,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def qwen2_moe(**changes: Any) -> PreTrainedModel:
    values = {"num_experts": 8, "intermediate_size": 48, "moe_intermediate_size": 16}
    values |= {"shared_expert_intermediate_size": 24}
    return randomised(Qwen2MoeForCausalLM(Qwen2MoeConfig(**COMMON | values | changes)))


def qwen2_moe_renormalised(**changes: Any) -> PreTrainedModel:
    return qwen2_moe(**{"norm_topk_prob": True} | changes)


def qwen3_moe(**changes: Any) -> PreTrainedModel:
    values = {"num_experts": 8, "intermediate_size": 48, "moe_intermediate_size": 16}
    values |= {"head_dim": 8, "norm_topk_prob": True}
    return randomised(Qwen3MoeForCausalLM(Qwen3MoeConfig(**COMMON | values | changes)))


def olmoe(**changes: Any) -> PreTrainedModel:
    values = {"num_experts": 8, "intermediate_size": 16}
    return randomised(OlmoeForCausalLM(OlmoeConfig(**COMMON | values | changes)))


def mixtral(**changes: Any) -> PreTrainedModel:
    values = {"num_local_experts": 8, "intermediate_size": 16}
    return randomised(MixtralForCausalLM(MixtralConfig(**COMMON | values | changes)))


FAMILIES: dict[str, Callable[..., PreTrainedModel]] = {
    "qwen2_moe": qwen2_moe,
    "qwen2_moe_renormalised": qwen2_moe_renormalised,
    "qwen3_moe": qwen3_moe,
    "olmoe": olmoe,
    "mixtral": mixtral,
}


def randomised(model: PreTrainedModel, seed: int = 0) -> PreTrainedModel:
    """Give a model weights large enough that its routers have clear preferences."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model.eval().requires_grad_(False)


def random_sequences(lengths: list[int], seed: int = 0) -> TokenSequences:
    """Return sequences of the given lengths; what follows their ends is padding."""
    generator = np.random.default_rng(seed)
    ids = np.zeros((len(lengths), max(lengths)), dtype=np.int64)
    for row, length in zip(ids, lengths, strict=True):
        row[:length] = generator.integers(3, VOCABULARY, length)
    return TokenSequences(ids, np.array(lengths, dtype=np.int64))


def save(model: PreTrainedModel, directory: Path, count: int = VOCABULARY) -> Path:
    """Write a checkpoint with a tokenizer of one word per id, of which there are `count`."""
    model.save_pretrained(directory)
    words = {f"w{i}": i for i in range(count - 1)} | {"[UNK]": count - 1}
    tokenizer = Tokenizer(WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="w0", bos_token="w1", eos_token="w2"
    )
    fast.save_pretrained(directory)
    return directory
