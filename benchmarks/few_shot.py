"""Requests of made-up lengths: tokens sent, padding, and the time of examples that all share.

Usage: python benchmarks/few_shot.py [--timed]

For each shape and limit of tokens in a batch: tokens with padding, of those that would do if
everything that requests begin with were computed once. `anew`: what rows begin with is read in
every row, as where a model cannot go on from keys and values.

With `--timed`, the embedded model scores questions of four choices after examples of some tokens
that all share, both ways in turns, on one thread, in CPU time: the median of rounds, and the range.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from batches import DEMO, LIMITS
from in_turns import in_turns
from transformers import AutoModelForCausalLM

from mbench.core.batch_limit import BatchLimit
from mbench.evaluate.packed_batch import Request
from mbench.evaluate.packing import Packing

VOCABULARY, ROUNDS = 2048, 3


def requests(random, lengths, choices: int, examples: int = 0, subjects: int = 1) -> list[Request]:
    """Questions of these lengths with so many choices; each subject has examples of its own."""

    def tokens(count: float) -> list[int]:
        return random.integers(5, VOCABULARY, max(1, int(count))).tolist()

    begin = [tokens(examples) if examples else [] for _ in range(subjects)]
    found = []
    for number, length in enumerate(lengths):
        question = begin[number % subjects] + tokens(length)
        for _ in range(choices):
            choice = tokens(random.integers(1, 12))
            found.append(Request(question + choice[:-1], choice))
    return found


def questions(random, count: int):
    return random.lognormal(3.7, 0.5, count)


SHAPES: dict[str, Callable[[np.random.Generator], list[Request]]] = {
    "lognormal, 2 choices": lambda r: requests(r, r.lognormal(4.4, 0.6, 1500), 2),
    "wide, 10 choices": lambda r: requests(r, r.lognormal(4, 1.2, 400), 10),
    "12 or 900 tokens": lambda r: requests(r, r.choice([12, 900], 800, p=[0.9, 0.1]), 4),
    "one of 20,000 tokens": lambda r: requests(r, [20_000, *r.lognormal(4.4, 0.6, 1500)], 4),
    "contexts of 5,000": lambda r: requests(r, r.lognormal(8.5, 0.15, 60), 4),
    "600 to 4,000 tokens": lambda r: requests(r, r.integers(600, 4000, 100), 4),
    "4,000 choices": lambda r: requests(r, [50], 4000),
    **{
        f"examples, {size}": lambda r, size=size: requests(r, questions(r, 400), 4, size)
        for size in (300, 1300, 3000, 5000)
    },
    "57 subjects, 700 each": lambda r: requests(r, questions(r, 570), 4, 700, 57),
    "57 subjects, 3,000 each": lambda r: requests(r, questions(r, 1140), 4, 3000, 57),
}


def padded(packing: Packing, limit: int, begins: bool) -> float:
    """Tokens with padding, and those read before, of the floor."""
    batches = packing.batches(limit, begins=begins)
    begun = sum(len(tokens) for tokens in {batch.begun for batch in batches})
    return (sum(batch.ids.numel() for batch in batches) + begun) / packing.floor


def counted() -> None:
    for name, shape in SHAPES.items():
        packing = Packing(shape(np.random.default_rng(1)))
        for way, begins in (("", True), ("anew", False)):
            ratios = [f"{limit:6d}: {padded(packing, limit, begins):.2f}" for limit in LIMITS]
            print(f"{name:24} {way:4} {'  '.join(ratios)}", flush=True)


def timed() -> None:
    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(DEMO / "model", dtype=torch.float32).eval()
    for examples, count in ((300, 200), (1300, 500), (3000, 300)):
        random = np.random.default_rng(0)
        packing = Packing(requests(random, questions(random, count), 4, examples))
        parts = packing.usable(model, BatchLimit(8192))
        assert parts is not None
        ways = {
            name: partial(packing.score, way, BatchLimit(8192), model.device, lambda _: None)
            for name, way in (("once", parts), ("anew", replace(parts, goes_on=False)))
        }
        turns = in_turns(ways, ROUNDS)
        for found in turns.results:
            for (value, _), (expected, _) in zip(found["once"], found["anew"], strict=True):
                assert abs(value - expected) < 1e-3 * max(1, abs(expected)), (value, expected)
        ratio = turns.ratio("anew", "once")
        print(f"examples of {examples} tokens, {count} questions: anew / once {ratio}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--timed", action="store_true")
    timed() if parser.parse_args().timed else counted()


if __name__ == "__main__":
    main()
