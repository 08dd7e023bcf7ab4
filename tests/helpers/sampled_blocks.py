"""MoE blocks of a random Qwen2-MoE, and profiles of what `ReconstructionSample` takes of them."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

import mbench
from mbench_plugins.expert_sparsity import ReconstructionSample

TOKENS, EXPERTS, TOP_K, HIDDEN = 120, 8, 2, 32
SMALL = {"tokens": 60, "held_out": 30, "seed": 3}


def qwen_layers(renormalise):
    """The two MoE blocks of a random Qwen2-MoE and their inputs [TOKENS, HIDDEN], float64."""
    from transformers import Qwen2MoeConfig, Qwen2MoeForCausalLM

    torch.manual_seed(0)
    config = Qwen2MoeConfig(
        vocab_size=50,
        hidden_size=HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        intermediate_size=48,
        moe_intermediate_size=24,
        shared_expert_intermediate_size=24,
        num_experts=EXPERTS,
        num_experts_per_tok=TOP_K,
        norm_topk_prob=renormalise,
        experts_implementation="eager",  # the others compute in float32 at most
    )
    model = Qwen2MoeForCausalLM(config).double().eval()
    for name, parameter in model.named_parameters():
        if ".mlp." in name:
            torch.nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)
    blocks = [layer.mlp for layer in model.model.layers]
    inputs = {}
    for block in blocks:
        block.register_forward_pre_hook(
            lambda module, args: inputs.update({module: args[0].reshape(-1, HIDDEN)})
        )
    with torch.no_grad():
        model(torch.randint(0, 50, (4, TOKENS // 4)))
    return [(block, inputs[block]) for block in blocks]


def all_outputs(block, hidden):
    """[t, N, H]: every expert alone, called through the block's own code with weight 1."""
    one = torch.ones(len(hidden), 1, dtype=hidden.dtype)
    outputs = [
        block.experts(hidden, torch.full((len(hidden), 1), expert), one)
        for expert in range(EXPERTS)
    ]
    return torch.stack(outputs, dim=1)


def batches(statistic, block, hidden, size):
    for rows in torch.arange(TOKENS).split(size):
        sampled = np.intersect1d(statistic.sampled_tokens(TOKENS), rows.numpy()) - int(rows[0])
        part = hidden[rows]
        logits, weights, index = block.gate(part)
        yield mbench.LayerBatch(
            layer="model.layers.0.mlp.experts",
            num_experts=EXPERTS,
            hidden=part,
            top_k_index=index,
            top_k_weight=weights,
            output_norm=torch.zeros(index.shape),
            token=rows,
            ids=rows,
            start=int(rows[0]),
            total_tokens=TOKENS,
            sampled=torch.from_numpy(sampled),
            residual=lambda: pytest.fail("not needed"),
            router_logits=lambda logits=logits: logits.float(),
            routed_outputs=lambda: pytest.fail("not needed"),
            expert_outputs=lambda chosen, part=part: all_outputs(block, part[chosen]),
            inner_activations=lambda rows: pytest.fail("not needed"),
        )


@torch.no_grad()
def measured(statistic, block, hidden, size=TOKENS):
    parts = [statistic.measure(batch) for batch in batches(statistic, block, hidden, size)]
    return {name: torch.cat([part[name] for part in parts]).numpy() for name in parts[0]}


def profile_of(layers, router="sliced", **params):
    statistic = ReconstructionSample(**(SMALL | params))
    samples = [measured(statistic, block, hidden) for block, hidden in layers]
    return profile_with({statistic.identity: samples}, router)


def profile_with(samples, router="sliced", tokens=TOKENS):
    count = len(next(iter(samples.values())))
    return mbench.Profile(
        corpus="c4",
        layers=tuple(f"model.layers.{number}.mlp.experts" for number in range(count)),
        num_experts=EXPERTS,
        top_k=TOP_K,
        tokens=tokens,
        router=router,
        shard_sums={},
        load_samples=lambda identity, layer: samples[identity][layer],
    )


def budget_of(kept, layers=2):
    return mbench.Budget(kept / EXPERTS, kept, layers, EXPERTS, TOP_K)


def sliced_output(block, hidden, kept):
    """The routed output [t, H] of a physically smaller block."""
    block = copy.deepcopy(block)
    block.gate.weight.data = block.gate.weight.data[kept]
    block.gate.top_k = min(TOP_K, len(kept))
    block.experts.gate_up_proj.data = block.experts.gate_up_proj.data[kept]
    block.experts.down_proj.data = block.experts.down_proj.data[kept]
    block.experts.num_experts = len(kept)
    _, weights, index = block.gate(hidden)
    return block.experts(hidden, index, weights)


def preserved_output(block, hidden, kept):
    """The routed output [t, H] with the gates that retained experts have in the full block."""
    gates = torch.softmax(hidden @ block.gate.weight.T, dim=-1)
    outputs = all_outputs(block, hidden)
    weights, index = gates[:, kept].topk(min(TOP_K, len(kept)))
    return (
        weights[:, :, None] * outputs[:, kept].gather(1, index[:, :, None].expand(-1, -1, HIDDEN))
    ).sum(1)
