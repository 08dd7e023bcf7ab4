"""DeepSeek-MoE checkpoints against a plain float64 implementation."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.nn import functional

from helpers import deepseek_moe
from helpers.deepseek_moe import CONFIG, logits, random_tensors, shapes, write
from mbench.core.errors import ModelNotFound, UnsupportedModel
from mbench.moe.load import describe, load
from mbench.moe.mask import masked

IDS = [5, 250, 17, 17, 99, 3, 120, 41, 7, 256]


@pytest.fixture(scope="module")
def tensors():
    return random_tensors(CONFIG)


@pytest.fixture(scope="module")
def checkpoint(tensors, tmp_path_factory):
    return write(tmp_path_factory.mktemp("deepseek"), CONFIG, tensors)


def model_logits(loaded):
    return loaded.model(torch.tensor([IDS])).logits[0].double()


def assert_computes(path, config, tensors):
    expected = logits(config, tensors, IDS, {})
    torch.testing.assert_close(model_logits(load(str(path), device="cpu")), expected, **CLOSE)


CLOSE = {"rtol": 0.0, "atol": 2e-5}


def test_it_computes_what_the_architecture_says(checkpoint, tensors):
    assert_computes(checkpoint, CONFIG, tensors)


@pytest.mark.parametrize(
    "changes",
    [
        {"norm_topk_prob": True},
        {"first_k_dense_replace": 0},
        {"n_shared_experts": 1},
        {"num_experts_per_tok": 8},
        {"num_key_value_heads": 4},
    ],
    ids=str,
)
def test_it_follows_the_settings(changes, tmp_path):
    config = CONFIG | changes
    assert_computes(write(tmp_path, config, found := random_tensors(config)), config, found)


@pytest.mark.parametrize("kept", [5, 3, 2, 1])
def test_a_mask_removes_experts_of_the_original(checkpoint, tensors, kept):
    """Also with fewer experts left than a token gets (3)."""
    loaded = load(str(checkpoint), device="cpu")
    generator = np.random.default_rng(kept)
    chosen = [sorted(generator.permutation(8)[:kept].tolist()) for _ in loaded.layers]
    keep = np.zeros((2, 8), dtype=bool)
    for row, experts in zip(keep, chosen, strict=True):
        row[experts] = True
    expected = logits(CONFIG, tensors, IDS, dict(enumerate(chosen, start=1)))
    with masked(loaded.layers, keep):
        torch.testing.assert_close(model_logits(loaded), expected, **CLOSE)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_shared_experts_are_exact_in_every_dtype(dtype, tmp_path):
    tensors = {name: each.to(dtype) for name, each in random_tensors(CONFIG).items()}
    config = CONFIG | {"torch_dtype": str(dtype).removeprefix("torch.")}
    loaded = load(str(write(tmp_path, config, tensors)), device="cpu")
    block = loaded.layers[0].block
    hidden = torch.randn(50, 32, generator=torch.Generator().manual_seed(1)).to(dtype)
    gate, up, down = (
        tensors[f"model.layers.1.mlp.shared_experts.{name}_proj.weight"]
        for name in ("gate", "up", "down")
    )
    inner = functional.silu(functional.linear(hidden, gate)) * functional.linear(hidden, up)
    factor = torch.sigmoid(block.shared_expert_gate(hidden))
    assert torch.equal(factor * block.shared_expert(hidden), functional.linear(inner, down))


def test_facts_count_the_mixture_layers_and_the_originals_parameters(checkpoint):
    facts = describe(str(checkpoint))
    assert facts.model_type == "deepseek"
    assert facts.layers == ("model.layers.1.mlp.experts", "model.layers.2.mlp.experts")
    assert (facts.num_experts, facts.top_k, facts.hidden_size) == (8, 3, 32)
    assert facts.parameters == sum(int(np.prod(shape)) for shape in shapes(CONFIG).values())
    assert facts.expert_parameters == 3 * 12 * 32
    assert facts.dtype == "float32"


def test_the_published_model_is_described(tmp_path):
    """Sizes of deepseek-moe-16b-base: 16.4 billion parameters."""
    published = {"vocab_size": 102400, "hidden_size": 2048, "intermediate_size": 10944}
    published |= {"moe_intermediate_size": 1408, "n_routed_experts": 64, "num_experts_per_tok": 6}
    published |= {"num_attention_heads": 16, "num_key_value_heads": 16, "num_hidden_layers": 28}
    config = CONFIG | published | {"rms_norm_eps": 1e-6, "torch_dtype": "bfloat16"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    facts = describe(str(tmp_path))
    assert (len(facts.layers), facts.num_experts, facts.top_k) == (27, 64, 6)
    assert facts.parameters == 16_375_728_128
    assert facts.dtype == "bfloat16"


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"scoring_func": "sigmoid"}, "scoring_func = sigmoid"),
        ({"moe_layer_freq": 2}, "moe_layer_freq = 2"),
        ({"attention_bias": True}, "attention_bias = True"),
        ({"rope_scaling": {"type": "linear", "factor": 4.0}}, "rope_scaling"),
        ({"routed_scaling_factor": 16.0, "n_group": 8}, "routed_scaling_factor = 16.0, n_group"),
        ({"n_shared_experts": None}, "without n_shared_experts"),
        ({"n_routed_experts": None}, "without n_routed_experts"),
    ],
)
def test_other_variants_are_refused_by_name(tmp_path, changes, named):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG | changes))
    with pytest.raises(UnsupportedModel, match=f"model {tmp_path}: DeepSeek-MoE.*{named}"):
        describe(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("model.layers.1.mlp.gate.e_score_correction_bias", "have unknown 1 tensors"),
        ("model.layers.1.self_attn.q_proj.bias", "have unknown 1 tensors"),
    ],
)
def test_weights_without_a_place_are_refused(tensors, tmp_path, name, problem):
    write(tmp_path, CONFIG, {**tensors, name: torch.zeros(32)})
    with pytest.raises(ModelNotFound, match=f"{problem}, e.g. {name}"):
        load(str(tmp_path), device="cpu")


def test_missing_experts_are_refused(tensors, tmp_path):
    lost = "model.layers.2.mlp.shared_experts.down_proj.weight"
    write(tmp_path, CONFIG, {name: each for name, each in tensors.items() if name != lost})
    with pytest.raises(ModelNotFound, match="the weights lack 2 tensors"):
        load(str(tmp_path), device="cpu")


def test_text_begins_with_the_token_that_the_configuration_asks_for(checkpoint):
    tokenizer = load(str(checkpoint), device="cpu").tokenizer
    text = "two  words\nañd 12"
    plain = tokenizer(text, add_special_tokens=False)["input_ids"]
    pieces = tokenizer.convert_ids_to_tokens(plain)
    assert len(pieces) == len(text.encode())
    assert tokenizer.decode(plain) == text
    assert tokenizer(text)["input_ids"] == [0, *plain]
    assert tokenizer.bos_token_id == 0


MEASURE = """
import resource, sys, torch
from mbench.moe.load import load
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before = peak()
loaded = load(sys.argv[1], device="cpu")
print((peak() - before) / sum(each.nbytes for each in loaded.model.parameters()))
"""


def test_loading_takes_the_memory_of_one_copy(tmp_path):
    """Plus what merging the experts of one layer of seven takes; two copies were 2.1."""
    sizes = {"hidden_size": 512, "moe_intermediate_size": 512, "n_routed_experts": 32}
    sizes |= {"num_hidden_layers": 8, "intermediate_size": 1024}
    config = CONFIG | sizes | {"torch_dtype": "bfloat16"}
    tensors = {name: torch.zeros(s, dtype=torch.bfloat16) for name, s in shapes(config).items()}
    assert sum(each.nbytes for each in tensors.values()) > 300e6
    write(tmp_path, config, tensors)
    del tensors
    command = [sys.executable, "-c", MEASURE, str(tmp_path)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert float(output) < 1.6


def test_the_plain_implementation_depends_on_every_setting(tensors):
    """The reference itself is no constant."""
    base = logits(CONFIG, tensors, IDS, {})
    for changes in ({"rope_theta": 100}, {"norm_topk_prob": True}, {"num_experts_per_tok": 2}):
        assert not torch.allclose(deepseek_moe.logits(CONFIG | changes, tensors, IDS, {}), base)
