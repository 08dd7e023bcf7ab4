"""Rotary angles that follow the longest text: nothing of what was read before stays."""

import copy

import pytest
import torch

from helpers.family_models import tiny_model
from mbench.moe.rotary import forget_longest

LENGTHS = (100, 65, 80, 64, 10, 70)
"""Of a model with 64 positions."""


def logits(model, length):
    with torch.no_grad():
        return model(input_ids=torch.arange(length)[None] % 50).logits


@pytest.mark.parametrize("kind", ["dynamic", "default"])
def test_a_text_gets_what_it_gets_first(kind):
    rope = {"rope_type": kind, "rope_theta": 10_000.0, "factor": 4.0}
    fresh = tiny_model("mixtral", head_dim=8, rope_parameters=rope).eval().double()
    fresh.set_experts_implementation("eager")
    stock, steady = copy.deepcopy(fresh), copy.deepcopy(fresh)
    forget_longest(steady)
    others = 0
    for length in LENGTHS:
        expected = logits(copy.deepcopy(fresh), length)
        assert torch.equal(logits(steady, length), expected)
        others += not torch.equal(logits(stock, length), expected)
    assert (others > 0) == (kind == "dynamic")
