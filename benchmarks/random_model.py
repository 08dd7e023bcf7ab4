"""A random Qwen2-MoE for measurements: its routers have distinct logits, as trained ones have."""

from __future__ import annotations

import torch
from transformers import Qwen2MoeConfig, Qwen2MoeForCausalLM

from mbench.moe.adapter import find_moe_layers


def random_model(dtype: torch.dtype, device: str, **sizes: int) -> Qwen2MoeForCausalLM:
    """Build it from fields of its configuration; equal ones give equal weights."""
    torch.manual_seed(0)
    config = Qwen2MoeConfig(num_experts_per_tok=4, **sizes)
    model = Qwen2MoeForCausalLM(config).to(device, dtype).eval().requires_grad_(False)
    for layer in find_moe_layers(model):
        torch.nn.init.normal_(layer.router.weight, std=0.05)
    return model
