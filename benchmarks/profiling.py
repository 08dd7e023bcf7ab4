"""Cost of a profiling pass beside the fastest plain forward pass.

Usage: python benchmarks/profiling.py [--models qwen2_moe,olmoe] [--dtypes float32,bfloat16]
           [--sequences 1,8] [--batches 1] [--length 1024] [--repeats 9] [--device cuda]
           [--every-expert]

Runs in turns, in one process with one thread. Each ratio is the median over rounds of a run's time
to that of the plain pass in the same round, with the least and the greatest; the plain pass is the
stock implementation of experts whose median is the least, and is named. `every expert` is the way
of REAP's own program: all experts on all tokens. All passes are of the model without its head, over
some batches one after another, as a profile has many.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping

import numpy as np
import torch
from in_turns import Turns, in_turns
from random_model import random_model
from transformers import OlmoeConfig, OlmoeForCausalLM, PreTrainedModel

from mbench.core.basics import RoutingSums
from mbench.core.layer_data import LayerBatch
from mbench.moe.adapter import find_moe_layers
from mbench.moe.calibration import TokenSequences
from mbench.moe.experts import fast_experts
from mbench.moe.profile import profile_model
from mbench_plugins.expert_sparsity import ReconstructionSample

VOCABULARY = 4096
STOCK = ("eager", "grouped_mm")
SAMPLED = 9216 / (256 * 2048)
"""ExpertSparsity's share of the tokens of 256 sequences of 2,048 tokens."""


class EveryExpert(RoutingSums):
    """Norms of all experts' outputs on all tokens, of which those routed are then taken."""

    def measure(self, batch: LayerBatch) -> Mapping[str, torch.Tensor]:
        """The same sums."""
        for rows in torch.arange(len(batch.hidden), device=batch.hidden.device).split(1024):
            torch.linalg.vector_norm(batch.expert_outputs(rows), dim=-1)
        return super().measure(batch)


def build(name: str, dtype: torch.dtype, device: str) -> PreTrainedModel:
    """A random model of 2 layers: 60 experts, 4 a token, or 64 experts, 8 a token."""
    sizes = {"vocab_size": VOCABULARY, "num_hidden_layers": 2, "hidden_size": 512}
    sizes |= {"num_attention_heads": 8, "num_key_value_heads": 8}
    if name == "qwen2_moe":
        return random_model(
            dtype,
            device,
            **sizes,
            num_experts=60,
            moe_intermediate_size=352,
            shared_expert_intermediate_size=1408,
            intermediate_size=1408,
        )
    torch.manual_seed(0)
    config = OlmoeConfig(**sizes, num_experts=64, num_experts_per_tok=8, intermediate_size=256)
    model = OlmoeForCausalLM(config).to(device, dtype).eval().requires_grad_(False)
    for layer in find_moe_layers(model):
        torch.nn.init.normal_(layer.router.weight, std=0.05)
    return model


def runs_of(
    model: PreTrainedModel, ids: np.ndarray, batches: int, every_expert: bool
) -> dict[str, Callable[[], object]]:
    """What is timed, by name."""
    layers = find_moe_layers(model)
    text = TokenSequences(ids, np.full(len(ids), ids.shape[1]))

    def plain() -> None:
        with torch.no_grad():
            for batch in np.split(ids, batches):
                given = torch.from_numpy(batch).to(model.device)
                model.base_model(input_ids=given, use_cache=False)

    def stock(name: str) -> None:
        model.set_experts_implementation(name)
        plain()

    def fast() -> None:
        with fast_experts(layers):
            plain()

    def profiled(*statistics_: RoutingSums | ReconstructionSample) -> None:
        profile_model(model, layers, text, statistics_, batch_size=len(ids) // batches)

    tokens = max(2, round(SAMPLED * ids.size))
    sample = ReconstructionSample(tokens=tokens - tokens // 9, held_out=tokens // 9)
    runs: dict[str, Callable[[], object]] = {
        **{f"plain, {name}": (lambda name=name: stock(name)) for name in STOCK},
        "plain, as mbench evaluates": fast,
        "routing sums": lambda: profiled(RoutingSums()),
        "with ExpertSparsity's sample": lambda: profiled(RoutingSums(), sample),
    }
    if every_expert:
        runs["every expert"] = lambda: profiled(EveryExpert())
    return runs


def report(turns: Turns[object]) -> None:
    """Print each run's seconds, and its ratio to the fastest stock implementation."""
    best = turns.fastest(f"plain, {name}" for name in STOCK)
    for name in turns.seconds:
        ratio = turns.ratio(name, best)
        print(
            f"  {name:28} {turns.median(name):7.3f} s  {ratio} of `{best}`; least to least"
            f" {ratio.of_least:.2f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default="qwen2_moe,olmoe")
    parser.add_argument("--dtypes", default="float32,bfloat16")
    parser.add_argument("--sequences", default="1,8")
    parser.add_argument("--batches", type=int, default=1)
    parser.add_argument("--length", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--every-expert", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in options.models.split(","):
        for dtype in options.dtypes.split(","):
            model = build(name, getattr(torch, dtype), options.device)
            for sequences in map(int, options.sequences.split(",")):
                shape = options.batches * sequences, options.length
                ids = np.random.default_rng(0).integers(0, VOCABULARY, shape)
                print(
                    f"{name}, {dtype}, {options.batches} batches of {sequences} x"
                    f" {options.length}, {options.device}"
                )
                runs = runs_of(model, ids, options.batches, options.every_expert)
                report(in_turns(runs, options.repeats, options.device))


if __name__ == "__main__":
    main()
