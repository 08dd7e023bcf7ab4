"""What a config.json asks for beyond the model: ignored where inference does not need it."""

from __future__ import annotations

import json
import shutil
from functools import partial

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen3MoeConfig

from helpers.family_models import tiny_model
from helpers.tiny_models import FAMILIES, random_sequences, save
from helpers.tiny_suite import go, plan_of
from mbench.core.basics import RoutingSums
from mbench.core.errors import UnsupportedModel
from mbench.core.model_facts import ModelFacts
from mbench.moe.config import positions_of
from mbench.moe.load import describe, load
from mbench.moe.mask import masked
from mbench.moe.profile import profile_model
from mbench.storage.checkpoints import Directory, model_key
from mbench.storage.store import Store

MODELS = {name: FAMILIES[name] for name in ("qwen2_moe", "qwen3_moe", "olmoe", "mixtral")}
MODELS |= {name: partial(tiny_model, name) for name in ("phimoe", "minimax")}
PROMPTS = torch.tensor([[5, 9, 17, 4], [33, 8, 21, 50]])

IGNORED = {
    "router logits": {"output_router_logits": True, "router_aux_loss_coef": 0.5},
    "what is handed out": {"output_attentions": True, "output_hidden_states": True},
    "tuples": {"return_dict": False},
    "no cache": {"use_cache": False},
    "attention": {"attn_implementation": "flash_attention_2"},
    "attention, as saved": {"_attn_implementation": "no_such_kernel", "output_attentions": True},
    "experts": {"experts_implementation": "eager", "_experts_implementation": "no_such"},
    "padding": {"pad_token_id": 64},
}
INERT = {"attention_dropout": 0.5, "router_jitter_noise": 0.5, "input_jitter_noise": 0.5}
"""Dropout and noise of training; PhiMoE's router reads the second one in inference too."""


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    root = tmp_path_factory.mktemp("families")
    return {name: save(make(), root / name) for name, make in MODELS.items()}


def changed(original, tmp_path, file="config.json", **changes):
    copy = shutil.copytree(original, tmp_path / "changed")
    path = copy / file
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return copy


@torch.no_grad()
def outcome(checkpoint):
    """Logits full and masked, what is generated, and how often each expert was chosen."""
    loaded = load(str(checkpoint), device="cpu")
    keep = np.ones((len(loaded.layers), loaded.facts.num_experts), dtype=bool)
    keep[:, ::2] = False
    found = {"full": loaded.model(PROMPTS).logits}
    with masked(loaded.layers, keep):
        found["masked"] = loaded.model(PROMPTS, use_cache=False).logits
        found["generated"] = loaded.model.generate(PROMPTS, max_new_tokens=6, do_sample=False)
    profiled = profile_model(
        loaded.model, loaded.layers, random_sequences([9, 12]), [RoutingSums()], batch_size=2
    )
    (sums,) = profiled.sums.values()
    return found | {name: torch.from_numpy(values) for name, values in sums.items()}


@pytest.fixture(scope="module")
def clean(checkpoints):
    return {name: outcome(path) for name, path in checkpoints.items()}


@pytest.mark.parametrize("family", MODELS)
@pytest.mark.parametrize("changes", [*IGNORED.values(), INERT], ids=[*IGNORED, "training"])
def test_what_inference_does_not_need_changes_no_bit(family, changes, checkpoints, clean, tmp_path):
    if changes is INERT and family == "phimoe":
        changes = {name: INERT[name] for name in INERT if name != "router_jitter_noise"}
    copy = changed(checkpoints[family], tmp_path, **changes)
    found = outcome(copy)
    for name, expected in clean[family].items():
        assert torch.equal(found[name], expected), name
    told = " ".join(describe(str(copy)).normalised)
    needless = set(changes) - {"router_aux_loss_coef", *INERT}
    assert all(field.removeprefix("_") in told for field in needless)
    assert bool(needless) == bool(told)
    assert describe(str(checkpoints[family])).normalised == ()


GENERATION = {
    **{"do_sample": True, "temperature": 5.0, "top_p": 0.5, "num_beams": 3, "min_new_tokens": 6},
    **{"repetition_penalty": 3.0, "no_repeat_ngram_size": 1, "suppress_tokens": list(range(3, 40))},
    **{"forced_eos_token_id": 7, "output_router_logits": True, "sequence_bias": [[[9], -50.0]]},
}


@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe"])
@torch.no_grad()
def test_generation_is_greedy_whatever_the_checkpoint_asks_for(family, checkpoints, tmp_path):
    stock = AutoModelForCausalLM.from_pretrained(checkpoints[family])
    ids = PROMPTS
    for _ in range(8):
        ids = torch.cat([ids, stock(ids).logits[:, -1:].argmax(-1)], dim=1)
    copy = changed(checkpoints[family], tmp_path, "generation_config.json", **GENERATION)
    loaded = load(str(copy), device="cpu")
    generated = loaded.model.generate(PROMPTS, max_new_tokens=8, eos_token_id=None)
    assert torch.equal(generated, ids)
    (told,) = loaded.facts.normalised
    assert all(f"{field} " in told for field in GENERATION if field != "output_router_logits")
    assert loaded.model.generation_config.eos_token_id == 2


SUITE = """\
name: tiny
models: {{it: {{path: {model}}}}}
retain: {retain}
corpora: {{words: {{source: {{files: [{text}]}}, sequences: 4, length: 16}}}}
methods: {{reap: {{corpora: [words]}}}}
perplexity: {{ppl: {{source: {{files: [{text}]}}, window: 16, stride: 8, max_windows: 4}}}}
"""


def test_what_is_in_the_store_decides_nothing(checkpoints, tmp_path):
    """The loss that `output_router_logits` asks for failed in whatever was evaluated first."""
    text = tmp_path / "text.txt"
    text.write_text(" ".join(f"w{i % 60 + 3}" for i in range(0, 1400, 7)))
    figures = []
    asking = changed(checkpoints["mixtral"], tmp_path, output_router_logits=True)
    for model, warm in ((checkpoints["mixtral"], False), (asking, False), (asking, True)):
        store = Store(tmp_path / f"store {len(figures)}")
        if warm:
            # The unpruned model's evaluation is stored, and the others are made beside it.
            go(plan_of(tmp_path, store, SUITE.format(model=model, text=text, retain=[0.25])), store)
        suite = SUITE.format(model=model, text=text, retain=[0.5])
        _, table = go(plan_of(tmp_path, store, suite), store)
        assert set(table["status"]) == {"ok"}
        figures.append(table["value"].tolist())
    assert figures[0] == figures[1] == figures[2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pruned_heads": {"0": [1]}}, "pruned_heads in config.json: attention heads were pruned"),
        ({"is_encoder_decoder": True}, "is_encoder_decoder in config.json: an encoder"),
        ({"num_experts": [8, 4]}, "num_experts"),
        ({"num_hidden_layers": "two"}, "num_hidden_layers"),
        ({"hidden_act": "no_such"}, "no_such"),
        ({"model_type": "no_such_model"}, "no_such_model"),
        ({"rope_parameters": {"rope_type": "no_such"}}, "no_such"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers 1000000000 .* at most 1000"),
        ({"num_experts_per_tok": 9}, "a token chooses 9 of 8 experts"),
        ({"num_experts_per_tok": 0}, "a token chooses 0 of 8 experts"),
        ({"max_position_embeddings": -1}, "max_position_embeddings -1"),
    ],
)
def test_a_broken_config_is_one_line_that_never_suggests_to_trust_code(
    changes, message, checkpoints, tmp_path
):
    copy = changed(checkpoints["qwen2_moe"], tmp_path, **changes)
    for ask in (describe, lambda path: load(path, device="cpu")):
        with pytest.raises(UnsupportedModel, match=message) as caught:
            ask(str(copy))
        assert "\n" not in str(caught.value)
        assert "trust" not in str(caught.value)
        assert str(copy) in str(caught.value)


def test_a_generation_config_that_is_none_is_refused(checkpoints, tmp_path):
    copy = changed(checkpoints["olmoe"], tmp_path, "generation_config.json", eos_token_id="</s>")
    with pytest.raises(UnsupportedModel, match=r"generation_config\.json: eos_token_id is '</s>'"):
        describe(str(copy))
    (copy / "generation_config.json").write_text("{")
    with pytest.raises(UnsupportedModel, match=r"generation_config\.json is not JSON"):
        describe(str(copy))


def test_attention_is_as_the_suite_says_and_enters_the_identity(checkpoints, tmp_path):
    for asked, got in (("auto", "sdpa"), ("sdpa", "sdpa"), ("eager", "eager")):
        loaded = load(str(checkpoints["mixtral"]), device="cpu", attention=asked)
        assert loaded.model.config._attn_implementation == got
    facts = describe(str(save(tiny_model("gpt_oss"), tmp_path / "gpt_oss")))
    assert facts.attention("auto") == "eager"
    with pytest.raises(UnsupportedModel, match=r"no 'sdpa' attention \(valid: auto, eager\)"):
        facts.attention("sdpa")


@pytest.mark.parametrize(
    ("rope", "positions"),
    [
        ({"rope_type": "default", "rope_theta": 1e4}, 64),
        ({"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e4}, 256),
        (
            {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
            | {"rope_theta": 1e4},
            64,
        ),
        ({"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}, 128),
        ({"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}, 64),
    ],
)
def test_rope_scaling_extends_positions(rope, positions):
    config = Qwen3MoeConfig(max_position_embeddings=64, rope_parameters=rope, sliding_window=8)
    assert positions_of(config) == positions


def test_facts_tell_sizes_and_gates(checkpoints, tmp_path):
    facts = {name: describe(str(path)) for name, path in checkpoints.items()}
    assert {(each.positions, each.vocabulary) for each in facts.values()} == {(64, 64)}
    gates = {name: each.gates for name, each in facts.items()}
    assert gates["mixtral"] == gates["qwen3_moe"] == gates["minimax"] == "renormalised"
    assert gates["qwen2_moe"] == gates["olmoe"] == "grown"
    assert gates["phimoe"] is None
    for changes, expected in (({}, "renormalised"), ({"norm_topk_prob": False}, "kept")):
        model = tiny_model("flint", **changes)
        path = save(model, tmp_path / f"flint {expected}")
        assert describe(str(path)).gates == expected
    written = json.dumps(facts["mixtral"].to_json())
    assert ModelFacts.from_json(json.loads(written)) == facts["mixtral"]


def test_an_adapter_beside_the_weights_is_refused_and_another_model(checkpoints, tmp_path):
    """transformers would load it where peft is installed, and ignore it elsewhere."""
    place = tmp_path / "adapted"
    shutil.copytree(checkpoints["mixtral"], place)
    before = model_key(Directory(place))
    (place / "adapter_config.json").write_text("{}")
    assert model_key(Directory(place)) != before
    with pytest.raises(UnsupportedModel, match=r"has an adapter \(adapter_config.json\)"):
        describe(str(place))
