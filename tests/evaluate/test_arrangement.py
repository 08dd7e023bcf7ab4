"""Sequences arranged in rows, lines and batches: each once, little twice, little padding."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mbench.evaluate import arrangement
from mbench.evaluate.arrangement import Arrangement, batches_of
from mbench.evaluate.cuts import cuts


@settings(max_examples=60, deadline=None)
@given(
    sequences=st.lists(
        st.lists(st.integers(0, 2), min_size=1, max_size=40), min_size=1, max_size=30
    ),
    most=st.integers(1, 120),
)
def test_rows_and_batches_hold_every_sequence_once_within_their_bounds(sequences, most):
    found = Arrangement(sequences)
    rows = found.rows(range(len(sequences)), most)
    assert sorted(at for row in rows for at in row.members) == list(range(len(sequences)))
    for row in rows:
        tree = {
            tuple(sequences[at][:stop])
            for at in row.members
            for stop in range(1, len(sequences[at]) + 1)
        }
        assert row.tokens == len(tree)
        longest = max(len(sequences[at]) for at in row.members)
        assert row.tokens <= most or row.tokens == longest
    batches = list(batches_of(rows, most))
    assert sorted(row.members for lines in batches for line in lines for row in line) == sorted(
        row.members for row in rows
    )
    for lines in batches:
        lengths = [sum(row.tokens for row in line) for line in lines]
        assert len(lines) * max(lengths) <= most or (len(lines) == 1 and len(lines[0]) == 1)
        assert sum(lengths) >= 0.9 * len(lines) * max(lengths)


def test_the_cut_into_rows_costs_least():
    """All cuts of a few sorted sequences, tried one by one."""
    examples = [7] * 700
    sequences = [[*examples, at, *[at] * 40] for at in range(6)] + [[9] * 500, [9, *[8] * 300]]
    rows = Arrangement(sequences).rows(range(8), 4000)

    def cost(part):
        tokens = len({tuple(each[:stop]) for each in part for stop in range(1, len(each) + 1)})
        return tokens + tokens**2 / arrangement.PAIRS

    ordered, best = sorted(sequences), float("inf")
    for borders in itertools.product((False, True), repeat=7):
        places = [0, *(at + 1 for at, cut in enumerate(borders) if cut), 8]
        best = min(best, sum(cost(ordered[a:b]) for a, b in itertools.pairwise(places)))
    assert sum(row.tokens + row.tokens**2 / arrangement.PAIRS for row in rows) == pytest.approx(
        best
    )


def lengths_of(shape, random):
    """Tokens of each question, the choices of a question, and what all questions begin with."""
    return {
        "lognormal": (random.lognormal(4.4, 0.6, 600), 2, 0),
        "wide, ten choices": (random.lognormal(4, 1.2, 200), 10, 0),
        "two lengths": (random.choice([12, 900], 400), 4, 0),
        "one giant": ([20_000, *random.lognormal(4.4, 0.6, 600)], 4, 0),
        "contexts of 5,000": (random.lognormal(8.5, 0.15, 40), 4, 0),
        "no context": ([0] * 2000, 1, 0),
        "one context": ([50], 3000, 0),
        "examples of 300 tokens": (random.lognormal(3.7, 0.5, 300), 4, 300),
        "examples of 5,000 tokens": (random.lognormal(3.7, 0.5, 300), 4, 5000),
        "one request": ([60], 1, 0),
    }[shape]


SHAPES = (
    "lognormal",
    "wide, ten choices",
    "two lengths",
    "one request",
    "no context",
    "one context",
    "one giant",
    "contexts of 5,000",
    "examples of 300 tokens",
    "examples of 5,000 tokens",
)


@pytest.mark.parametrize("shape", SHAPES)
def test_little_is_sent_twice_and_little_is_padding(shape):
    random = np.random.default_rng(0)
    lengths, choices, examples = lengths_of(shape, random)
    begin = random.integers(0, 30_000, examples).tolist()
    sequences = []
    for length in lengths:
        question = [*begin, *random.integers(0, 30_000, int(length)).tolist()]
        for _ in range(choices):
            sequences.append([*question, *random.integers(0, 30_000, random.integers(1, 12))])
    found = Arrangement(sequences)
    most_begun = [len(each) - 1 for each in sequences]
    for tokens in (4096, 8192, 16384, 65536, 131072):
        batches = list(cuts(found, range(len(sequences)), tokens, most_begun))
        sent, padded = (sum(getattr(each, of) for each in batches) for of in ("tokens", "padded"))
        assert found.floor <= sent <= padded <= 1.1 * found.floor


def test_few_batches_with_little_padding_whatever_their_size():
    """Lengths as those of a task: most short, a few long."""
    generator = torch.Generator().manual_seed(0)
    lengths = (20 + torch.empty(2000).exponential_(0.02, generator=generator)).int().tolist()
    sequences = [[at] * length for at, length in enumerate(lengths)]
    rows = Arrangement(sequences).rows(range(2000), 4096)
    for tokens in (4096, 8192, 16384, 65536, 131072):
        batches = list(batches_of(rows, tokens))
        padded = sum(
            len(lines) * max(sum(row.tokens for row in line) for line in lines) for lines in batches
        )
        assert padded <= 1.1 * sum(lengths)
        assert len(batches) <= sum(lengths) / tokens + 12
