"""Cost of a profiling pass beside the plain forward pass.

Usage: python benchmarks/profiling.py [--dtype bfloat16] [--repeats 15] [--device cuda]

Prints the median times of alternating runs, and their ratio to the fastest stock implementation.
The model is a small random Qwen2-MoE with 60 experts; neither pass computes the head's logits.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from random_model import random_model
from transformers import Qwen2MoeForCausalLM

from mbench.core.basics import RoutingSums
from mbench.moe.adapter import MoELayer, find_moe_layers
from mbench.moe.calibration import TokenSequences
from mbench.moe.experts import fast_experts
from mbench.moe.profile import profile_model

VOCABULARY = 4096
STOCK = ("eager", "grouped_mm")


def build(dtype: torch.dtype, device: str) -> Qwen2MoeForCausalLM:
    return random_model(
        dtype,
        device,
        vocab_size=VOCABULARY,
        num_hidden_layers=4,
        num_experts=60,
        hidden_size=512,
        moe_intermediate_size=352,
        shared_expert_intermediate_size=1408,
        intermediate_size=1408,
        num_attention_heads=8,
        num_key_value_heads=8,
    )


def seconds(run: Callable[[], object], device: str) -> float:
    start = time.perf_counter()
    run()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter() - start


def plain(model: Qwen2MoeForCausalLM, sequences: TokenSequences, batch_size: int) -> None:
    with torch.no_grad():
        for start in range(0, len(sequences.ids), batch_size):
            ids = torch.from_numpy(sequences.ids[start : start + batch_size]).to(model.device)
            model.base_model(input_ids=ids, use_cache=False)


def fast(model: Qwen2MoeForCausalLM, layers: list[MoELayer], sequences: TokenSequences) -> None:
    with fast_experts(layers):
        plain(model, sequences, batch_size=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--length", type=int, default=1024)
    options = parser.parse_args()
    model = build(getattr(torch, options.dtype), options.device)
    layers = find_moe_layers(model)
    ids = np.random.default_rng(0).integers(0, VOCABULARY, (2, options.length))
    sequences = TokenSequences(ids, np.full(len(ids), options.length))

    def stock(name):
        model.set_experts_implementation(name)
        plain(model, sequences, batch_size=1)

    runs = {f"plain, {name}": lambda name=name: stock(name) for name in STOCK}
    runs["plain, fast_experts"] = lambda: fast(model, layers, sequences)
    runs["profiled"] = lambda: profile_model(
        model, layers, sequences, [RoutingSums()], batch_size=1
    )
    times: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(options.repeats + 1):
        for name in list(runs)[:: 1 if repeat % 2 else -1]:
            elapsed = seconds(runs[name], options.device)
            if repeat:
                times[name].append(elapsed)
    medians = {name: statistics.median(values) for name, values in times.items()}
    best = min(medians[f"plain, {name}"] for name in STOCK)
    print(
        f"{ids.size} tokens, {options.dtype}, {options.device}, {torch.get_num_threads()} threads"
    )
    for name, median in medians.items():
        print(f"{name:22} {median:8.3f} s  {median / best:6.3f} x fastest stock")


if __name__ == "__main__":
    main()
