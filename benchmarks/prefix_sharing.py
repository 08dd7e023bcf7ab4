"""What it saves to compute the lower layers that masks have in common once.

Usage: python benchmarks/prefix_sharing.py [--device cuda] [--dtype bfloat16] [--repeats 5]

Masks as two searches ask for them: a generation of an evolution of layer counts, in which each
child differs from a parent in a few layers anywhere, and an order of dropping experts layer by
layer. Prints the median times with and without sharing, in turns, their ratio, and whether every
bit is equal. The model is a small random Qwen2-MoE of 12 layers.
"""

from __future__ import annotations

import argparse
from functools import partial

import numpy as np
import torch
from in_turns import in_turns
from random_model import random_model
from transformers import Qwen2MoeForCausalLM

from mbench.core.interfaces import ExpertMask
from mbench.moe.adapter import find_moe_layers
from mbench.moe.experts import fast_experts
from mbench.moe.prefix import SharedPrefix

LAYERS, EXPERTS, VOCABULARY = 12, 32, 1024


def build(dtype: torch.dtype, device: str) -> Qwen2MoeForCausalLM:
    return random_model(
        dtype,
        device,
        vocab_size=VOCABULARY,
        num_hidden_layers=LAYERS,
        num_experts=EXPERTS,
        hidden_size=256,
        moe_intermediate_size=128,
        shared_expert_intermediate_size=512,
        intermediate_size=512,
        num_attention_heads=4,
        num_key_value_heads=4,
    )


def generation(rng: np.random.Generator) -> list[ExpertMask]:
    """28 children of 4 parents: one or two moves of experts between layers each."""
    parents = [np.full(LAYERS, 16) + rng.permutation([1, -1] * (LAYERS // 2)) for _ in range(4)]
    masks = {}
    while len(masks) < 28:
        counts = parents[rng.integers(4)].copy()
        for _ in range(rng.integers(1, 3)):
            one, other = rng.choice(LAYERS, 2, replace=False)
            counts[one] -= 1
            counts[other] += 1
        keep = np.arange(EXPERTS) < counts[:, None]
        masks[keep.tobytes()] = ExpertMask(keep)
    return list(masks.values())


def order(rng: np.random.Generator) -> list[ExpertMask]:
    """Four experts of one layer after another are dropped, until half of them are left."""
    keep = np.ones((LAYERS, EXPERTS), dtype=bool)
    masks = [ExpertMask(keep.copy())]
    for first in range(0, 16, 4):
        for layer in rng.permutation(LAYERS):
            keep[layer, first : first + 4] = False
            masks.append(ExpertMask(keep.copy()))
    return masks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=512)
    options = parser.parse_args()
    model = build(getattr(torch, options.dtype), options.device)
    layers = find_moe_layers(model)
    rng = np.random.default_rng(0)
    ids = torch.from_numpy(rng.integers(0, VOCABULARY, (1, options.tokens))).to(options.device)

    def outputs(masks: list[ExpertMask], share: bool) -> dict[int, torch.Tensor]:
        prefix = SharedPrefix(model, layers, share=share)
        with fast_experts(layers):
            return dict(
                prefix.run(
                    lambda ids: model.base_model(input_ids=ids, use_cache=False).last_hidden_state,
                    ids,
                    masks,
                    "sliced",
                )
            )

    for name, masks in (("evolution", generation(rng)), ("order", order(rng))):
        ways = {"shared": partial(outputs, masks, True), "each": partial(outputs, masks, False)}
        turns = in_turns(ways, options.repeats, options.device)
        equal = all(
            torch.equal(found["shared"][n], found["each"][n])
            for found in turns.results
            for n in found["each"]
        )
        print(
            f"{name}: {len(masks)} masks, {turns.median('shared'):.2f} s with sharing,"
            f" {turns.median('each'):.2f} s without, ratio {turns.ratio('shared', 'each')},"
            f" {'equal' if equal else 'NOT equal'} bit by bit"
        )


if __name__ == "__main__":
    main()
