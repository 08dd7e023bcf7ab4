"""How much cheaper the reconstruction search is than running the layer for every candidate set.

Run `python benchmarks/reconstruction.py`, with OMP_NUM_THREADS=1 for one thread. Times are CPU
seconds, so that other programs on the machine disturb them less.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from mbench_plugins.gram_statistics import GramStatistics
from mbench_plugins.reconstruction import elimination_order, removal_losses


def seconds(function, repeat):
    start = time.process_time()
    for _ in range(repeat):
        result = function()
    return (time.process_time() - start) / repeat, result


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--experts", type=int, default=16)
    parser.add_argument("--top-k", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--intermediate", type=int, default=64)
    size = parser.parse_args()

    torch.manual_seed(0)
    hidden = torch.randn(size.tokens, size.hidden)
    router = torch.randn(size.experts, size.hidden) * size.hidden**-0.5
    into = torch.randn(size.experts, 2 * size.intermediate, size.hidden) * size.hidden**-0.5
    out = torch.randn(size.experts, size.hidden, size.intermediate) * size.intermediate**-0.5
    logits = hidden @ router.T

    def expert(number, tokens):
        gate, up = (tokens @ into[number].T).chunk(2, dim=-1)
        return (torch.nn.functional.silu(gate) * up) @ out[number].T

    def layer_output(keep):
        masked = logits.masked_fill(~torch.from_numpy(keep), float("-inf"))
        weights, index = torch.softmax(masked, dim=-1).topk(size.top_k)
        weights = weights / weights.sum(dim=-1, keepdim=True)
        output = torch.zeros_like(hidden)
        for number in np.flatnonzero(keep):
            token, slot = (index == number).nonzero(as_tuple=True)
            part = weights[token, slot, None] * expert(number, hidden[token])
            output.index_add_(0, token, part)
        return output

    def inner_products():
        outputs = torch.stack([expert(number, hidden) for number in range(size.experts)], dim=1)
        upper = torch.triu_indices(size.experts, size.experts)
        return (outputs @ outputs.mT)[:, upper[0], upper[1]].numpy()

    once, gram = seconds(inner_products, 1)
    prepare, layer = seconds(
        lambda: GramStatistics(logits.numpy(), gram, size.top_k, "renormalised"), 1
    )
    everyone = np.ones(size.experts, dtype=bool)
    target = layer_output(everyone)
    candidates = [everyone & (np.arange(size.experts) != gone) for gone in range(size.experts)]
    recompute, errors = seconds(
        lambda: [float((layer_output(keep) - target).square().sum()) for keep in candidates], 2
    )
    searched, losses = seconds(lambda: removal_losses(layer, everyone), 5)
    path, _ = seconds(lambda: elimination_order(layer), 1)
    worst = np.abs(losses / errors - 1).max()
    steps = sum(range(2, size.experts + 1))

    print(f"{vars(size)}")
    print(f"once per layer: outputs and inner products {once:.3f} s, preparation {prepare:.3f} s")
    print(f"a candidate by running the layer: {1e3 * recompute / size.experts:.3f} ms")
    print(f"a candidate by the search: {1e3 * searched / size.experts:.4f} ms")
    print(f"ratio: {recompute / searched:.0f}, greatest relative difference of J: {worst:.1e}")
    print(f"whole elimination path, {steps} candidates: {path:.3f} s")
    by_running = steps * recompute / size.experts
    print(f"the same by running the layer: about {by_running:.1f} s")


if __name__ == "__main__":
    main()
