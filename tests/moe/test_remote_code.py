"""Code that comes with a model runs where the suite says so in as many words, and nowhere else."""

from __future__ import annotations

import json
import sys

import pytest
import torch
from safetensors.torch import save_file
from transformers import dynamic_module_utils

from helpers import deepseek_moe
from helpers.deepseek_moe import CONFIG, random_tensors
from helpers.tiny_models import qwen2_moe, save
from mbench.core.errors import UnsupportedModel
from mbench.core.suite import Suite
from mbench.core.suite_inputs import ModelSpec
from mbench.moe.load import describe, load
from mbench.plan.in_words import protocol_in_words

CODE = """
import pathlib
from transformers import Qwen2MoeConfig, Qwen2MoeForCausalLM

pathlib.Path({ran!r}).touch()

class HomemadeConfig(Qwen2MoeConfig):
    model_type = "homemade"

class HomemadeForCausalLM(Qwen2MoeForCausalLM):
    config_class = HomemadeConfig
"""


@pytest.fixture
def checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    directory = save(qwen2_moe(), tmp_path / "homemade")
    # A class of one's own gets no conversions from transformers: its tensors bear its own names.
    tensors = {name: each.contiguous() for name, each in qwen2_moe().state_dict().items()}
    save_file(tensors, directory / "model.safetensors", {"format": "pt"})
    (directory / "modeling_homemade.py").write_text(CODE.format(ran=str(tmp_path / "ran")))
    set_code(directory, "modeling_homemade")
    return directory


def set_code(directory, module):
    path = directory / "config.json"
    names = {"AutoConfig": "HomemadeConfig", "AutoModelForCausalLM": "HomemadeForCausalLM"}
    auto_map = {auto: f"{module}.{name}" for auto, name in names.items()}
    config = json.loads(path.read_text()) | {"model_type": "homemade", "auto_map": auto_map}
    path.write_text(json.dumps(config))


@pytest.mark.parametrize("ask", [describe, lambda path: load(path, device="cpu")])
def test_it_does_not_run_by_itself(checkpoint, tmp_path, ask):
    with pytest.raises(UnsupportedModel, match="own code, which the suite does not trust"):
        ask(str(checkpoint))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("ask", [describe, lambda path: load(path, device="cpu")])
def test_nobody_is_asked_about_it(checkpoint, tmp_path, ask, monkeypatch):
    """transformers would, for a configuration that it knows without a language model for it."""
    auto_map = {"AutoModelForCausalLM": "modeling_homemade.HomemadeForCausalLM"}
    (checkpoint / "config.json").write_text(json.dumps({"model_type": "vit", "auto_map": auto_map}))
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    with pytest.raises(UnsupportedModel, match="own code, which the suite does not trust") as error:
        ask(str(checkpoint))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "ran").exists()


def test_it_runs_where_it_is_trusted(checkpoint, tmp_path):
    loaded = load(str(checkpoint), device="cpu", trust_remote_code=True)
    assert (tmp_path / "ran").exists()
    assert loaded.facts.architecture == "HomemadeForCausalLM"
    assert loaded.facts == describe(str(checkpoint), trust_remote_code=True)
    ids = torch.tensor([[5, 6, 7]])
    torch.testing.assert_close(loaded.model(ids).logits, qwen2_moe()(ids).logits)


def test_code_of_another_repository_is_refused(checkpoint, tmp_path):
    set_code(checkpoint, "someone/else--modeling_homemade")
    with pytest.raises(UnsupportedModel, match=r"another repository \(someone/else\)"):
        describe(str(checkpoint), trust_remote_code=True)
    assert not (tmp_path / "ran").exists()


def test_trust_in_code_that_is_never_run_is_refused(tmp_path):
    checkpoint = deepseek_moe.write(tmp_path, CONFIG, random_tensors(CONFIG))
    with pytest.raises(UnsupportedModel, match="leave trust_remote_code out"):
        describe(str(checkpoint), trust_remote_code=True)


def test_a_report_says_that_it_ran_and_in_which_dtype():
    models = {
        "own": ModelSpec(path="somewhere", trust_remote_code=True),
        "native": ModelSpec(path="elsewhere"),
        "wide": ModelSpec(path="elsewhere", dtype="float32"),
        "both": ModelSpec(path="elsewhere", dtype="float16", trust_remote_code=True),
    }
    sections = {"corpora": {}, "perplexity": {}, "tasks": {}, "average": None}
    suite = Suite.model_construct(router="sliced", models=models, **sections)
    words = {entry.name: entry.text for entry in protocol_in_words(suite, {})}
    code = "code that comes with it is run (trust_remote_code)"
    assert words["Model own"] == code
    assert "Model native" not in words
    assert words["Model wide"] == "computed in float32"
    assert words["Model both"] == f"{code}; computed in float16"
