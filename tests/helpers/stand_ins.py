"""Small random checkpoints with the shapes that decide how a published model is pruned.

`PYTHONPATH=tests python -m helpers.stand_ins DIR` makes both models of suites/paper.yaml, so
that its whole grid can be tried where their weights are not.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2MoeConfig, Qwen2MoeForCausalLM

import mbench_plugins.demo
from helpers import deepseek_moe
from helpers.family_models import configuration
from helpers.tiny_models import randomised

TOKENIZER = Path(mbench_plugins.demo.__file__).parent / "model"

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "moe_intermediate_size": 16,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
}


def qwen(directory: Path, layers: int = 2) -> Path:
    """Qwen1.5-MoE-A2.7B's 60 experts, 4 per token, not renormalised, with shared experts."""
    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER)
    torch.manual_seed(0)
    config = Qwen2MoeConfig(
        **SIZES,
        vocab_size=len(tokenizer),
        num_hidden_layers=layers,
        num_experts=60,
        num_experts_per_tok=4,
        norm_topk_prob=False,
        shared_expert_intermediate_size=64,
        initializer_range=0.2,
    )
    Qwen2MoeForCausalLM(config).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def deepseek(directory: Path) -> Path:
    """DeepSeek-MoE-16B's 64 experts, 6 per token, under the tensor names of its own checkpoint."""
    shape = {"n_routed_experts": 64, "num_experts_per_tok": 6, "max_position_embeddings": 4096}
    config = deepseek_moe.CONFIG | shape
    return deepseek_moe.write(directory, config, deepseek_moe.random_tensors(config))


def family(directory: Path, model_type: str, num_experts: int, top_k: int) -> Path:
    """Two layers of any family that mbench treats."""
    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER)
    # Another width than any number of experts.
    changes = {"vocab_size": len(tokenizer), "max_position_embeddings": 4096, "hidden_size": 48}
    config = configuration(model_type, num_experts, top_k, **changes)
    randomised(AutoModelForCausalLM.from_config(config)).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


if __name__ == "__main__":
    qwen(Path(sys.argv[1]) / "qwen")
    deepseek(Path(sys.argv[1]) / "deepseek")
