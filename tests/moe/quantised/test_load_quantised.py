"""A quantised checkpoint loads as its twin of plain numbers, bit for bit."""

from __future__ import annotations

import pytest
import torch

from helpers.quantised_checkpoints import KINDS, write_pair
from mbench.moe.load import describe, load

IDS = torch.arange(3, 35)[None]


@pytest.fixture(scope="module", params=KINDS)
def pair(request, tmp_path_factory):
    return write_pair(request.param, tmp_path_factory.mktemp(request.param), apart=True)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_quantised_checkpoint_loads_as_its_twin(pair, dtype):
    quantised, twin = (load(str(folder), dtype=dtype, device="cpu") for folder in pair)
    expected = twin.model.state_dict()
    loaded = quantised.model.state_dict()
    assert loaded.keys() == expected.keys()
    for name, tensor in loaded.items():
        assert tensor.dtype == expected[name].dtype
        assert torch.equal(tensor, expected[name]), name
    assert torch.equal(quantised.model(IDS).logits, twin.model(IDS).logits)
    assert not hasattr(quantised.model.config, "quantization_config")


def test_its_facts_are_the_twins_but_for_the_form(pair):
    quantised, twin = (describe(str(folder)) for folder in pair)
    assert quantised.stored_form
    assert quantised.parameters == twin.parameters
    assert quantised.dtype == twin.dtype == "bfloat16"
