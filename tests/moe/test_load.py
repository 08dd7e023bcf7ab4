"""Loading: facts without weights, content identity, and one line for every trouble."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, modeling_utils

from helpers.prunable import deepseek_v3
from helpers.tiny_models import VOCABULARY, qwen2_moe, save
from mbench.core.errors import MbenchError, ModelNotFound, UnsupportedModel
from mbench.moe.load import describe, load
from mbench.storage.checkpoints import Directory, model_key


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return save(qwen2_moe(), tmp_path_factory.mktemp("original"))


@pytest.fixture
def checkpoint(original, tmp_path):
    return shutil.copytree(original, tmp_path / "checkpoint")


def edit_config(checkpoint, **changes):
    path = checkpoint / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_facts_need_no_weights(checkpoint):
    (checkpoint / "model.safetensors").unlink()
    facts = describe(str(checkpoint))
    assert facts.layers == ("model.layers.0.mlp.experts", "model.layers.1.mlp.experts")
    assert (facts.num_experts, facts.top_k, facts.hidden_size) == (8, 3, 32)
    assert facts.parameters == sum(each.numel() for each in qwen2_moe().parameters())
    assert facts.expert_parameters == 3 * 16 * 32
    assert facts.dtype == "float32"
    assert type(facts).from_json(json.loads(json.dumps(facts.to_json()))) == facts


def test_a_loaded_model_is_ready_to_be_profiled(checkpoint):
    loaded = load(str(checkpoint), device="cpu")
    ids = torch.tensor([loaded.tokenizer("w5 w6 w7")["input_ids"]])
    torch.testing.assert_close(loaded.model(ids).logits, qwen2_moe()(ids).logits)
    assert not loaded.model.training
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())
    assert loaded.facts == describe(str(checkpoint))
    assert tuple(layer.path for layer in loaded.layers) == loaded.facts.layers


def test_the_dtype_is_the_checkpoints_unless_another_is_asked_for(tmp_path):
    path = str(save(qwen2_moe().to(torch.bfloat16), tmp_path / "half"))
    assert load(path, device="cpu").model.dtype == torch.bfloat16
    assert load(path, device="cpu", dtype="float32").model.dtype == torch.float32
    assert describe(path).dtype == "bfloat16"


def test_a_transformers_that_reads_weights_otherwise_is_refused(checkpoint, monkeypatch):
    monkeypatch.delattr(modeling_utils, "safe_open")
    with pytest.raises(MbenchError, match="install the version in constraints") as caught:
        load(str(checkpoint), device="cpu")
    assert "\n" not in str(caught.value)


def test_facts_hold_what_the_routers_need(checkpoint):
    assert (describe(str(checkpoint)).groups, describe(str(checkpoint)).fewest_experts) == (1, 1)
    deepseek_v3().config.save_pretrained(checkpoint)
    assert (describe(str(checkpoint)).groups, describe(str(checkpoint)).fewest_experts) == (2, 4)


def unlink(name):
    return lambda checkpoint: (checkpoint / name).unlink()


def without_tokenizer(checkpoint):
    for path in checkpoint.glob("*token*"):
        path.unlink()


def truncated(checkpoint):
    path = checkpoint / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])


def lacking_a_tensor(checkpoint):
    path = checkpoint / "model.safetensors"
    tensors = load_file(path)
    del tensors["model.norm.weight"]
    save_file(tensors, path, {"format": "pt"})


def lacking_a_part(checkpoint):
    (checkpoint / "model.safetensors").unlink()
    index = {"weight_map": {"model.norm.weight": "model-00001-of-00002.safetensors"}}
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps(index))


def dense(checkpoint):
    LlamaConfig(vocab_size=64, hidden_size=32, intermediate_size=32).save_pretrained(checkpoint)


def unknown_form(checkpoint):
    edit_config(checkpoint, quantization_config={"quant_method": "quip", "bits": 4})
    (checkpoint / "model.safetensors").unlink()


def eight_bits(checkpoint):
    edit_config(checkpoint, dtype="float8_e4m3fn")


def remote_code(checkpoint):
    auto_map = {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"}
    edit_config(checkpoint, model_type="homemade", auto_map=auto_map)


def broken_config(checkpoint):
    (checkpoint / "config.json").write_text("{")


def misfit(checkpoint):
    edit_config(checkpoint, vocab_size=VOCABULARY + 1)


def tied(checkpoint):
    edit_config(checkpoint, tie_word_embeddings=True)


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (tied, UnsupportedModel, "says tie_word_embeddings, but lm_head.weight and .* differ"),
        (shutil.rmtree, ModelNotFound, "no such directory"),
        (unlink("config.json"), ModelNotFound, "config.json is missing"),
        (unlink("model.safetensors"), ModelNotFound, "no weights"),
        (without_tokenizer, ModelNotFound, "no tokenizer"),
        (truncated, ModelNotFound, "model.safetensors is (damaged|truncated)"),
        (lacking_a_tensor, ModelNotFound, "lack 1 tensors, e.g. model.norm.weight"),
        (lacking_a_part, ModelNotFound, "1 of 1 weight files are missing"),
        (misfit, ModelNotFound, "do not fit config.json"),
        (broken_config, ModelNotFound, "config"),
        (dense, UnsupportedModel, "LlamaForCausalLM is not a Mixture-of-Experts model"),
        (unknown_form, UnsupportedModel, r"weights stored by 'quip' are not read \(read: .*fp8"),
        (eight_bits, UnsupportedModel, r"stored in float8_e4m3fn.*\(valid: float64, float32"),
        (remote_code, UnsupportedModel, "the model's own code, which the suite does not trust"),
    ],
)
def test_every_trouble_is_one_line_that_names_the_model(checkpoint, damage, error, message):
    damage(checkpoint)
    with pytest.raises(error, match=message) as caught:
        load(str(checkpoint), device="cpu")
    assert "\n" not in str(caught.value)
    assert str(checkpoint) in str(caught.value)


def test_the_key_is_the_content_and_not_the_path(checkpoint, original):
    assert model_key(Directory(checkpoint)) == model_key(Directory(original))
    (checkpoint / "README.md").write_text("notes")
    assert model_key(Directory(checkpoint)) == model_key(Directory(original))
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        content = (checkpoint / name).read_bytes()
        (checkpoint / name).write_bytes(content + b" ")
        assert model_key(Directory(checkpoint)) != model_key(Directory(original))
        (checkpoint / name).write_bytes(content)


def test_an_incomplete_model_has_no_key(checkpoint):
    without_tokenizer(checkpoint)
    with pytest.raises(MbenchError, match="no tokenizer"):
        model_key(Directory(checkpoint))


def test_the_key_needs_no_torch():
    code = "import sys, mbench.storage.checkpoints; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
