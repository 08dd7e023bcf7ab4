"""A quantised checkpoint loads as its twin of plain numbers, bit for bit, or is refused by name."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from helpers.quantised_checkpoints import KINDS, write_pair
from helpers.tiny_models import random_sequences
from mbench.core.basics import RoutingSums
from mbench.core.errors import ModelNotFound, UnsupportedModel
from mbench.moe.load import describe, load
from mbench.moe.mask import masked
from mbench.moe.profile import profile_model
from mbench.storage.checkpoints import Directory, model_key

IDS = torch.arange(3, 35)[None]


@pytest.fixture(scope="module", params=KINDS)
def pair(request, tmp_path_factory):
    return write_pair(request.param, tmp_path_factory.mktemp(request.param), apart=True)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write_pair("qwen3-fp8", tmp_path_factory.mktemp("written"))[0]


@pytest.fixture
def checkpoint(written, tmp_path):
    return shutil.copytree(written, tmp_path / "checkpoint")


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


@torch.no_grad()
def test_profiles_and_masks_are_the_twins(pair):
    found = []
    for folder in pair:
        loaded = load(str(folder), device="cpu")
        sequences = random_sequences([10, 7, 12, 3])
        profile = profile_model(
            loaded.model, loaded.layers, sequences, [RoutingSums()], batch_size=2
        )
        (sums,) = profile.sums.values()
        keep = np.zeros((len(loaded.layers), 8), dtype=bool)
        keep[:, [0, 1, 4, 6]] = True
        with masked(loaded.layers, keep, "sliced"):
            found.append([*(sums[name] for name in sorted(sums)), loaded.model(IDS).logits.float()])
    for ours, expected in zip(*found, strict=True):
        assert np.array_equal(ours, expected)


def test_its_facts_are_the_twins_but_for_the_form(pair):
    quantised, twin = (describe(str(folder)).to_json() for folder in pair)
    config = json.loads((pair[0] / "config.json").read_text())
    is_fp8 = config["quantization_config"]["quant_method"] == "fp8"
    assert quantised.pop("may_stay_stored") == is_fp8
    assert not twin.pop("may_stay_stored")
    assert quantised.pop("stored_form")
    assert not twin.pop("stored_form")
    normalised = quantised.pop("normalised")
    assert [word for word in normalised if "activations are not quantised" not in word] == list(
        twin.pop("normalised")
    )
    assert quantised == twin


def test_the_page_can_say_what_is_stored_and_what_is_not_done(written):
    facts = describe(str(written))
    assert facts.stored_form == "FP8 128x128"
    assert "activations are not quantised: the checkpoint asks for dynamic FP8" in facts.normalised


def test_without_a_dtype_in_its_configuration_it_is_computed_in_bfloat16(checkpoint):
    edit(checkpoint, dtype=None)
    facts = describe(str(checkpoint))
    assert facts.dtype == "bfloat16"
    assert any("names no dtype" in word for word in facts.normalised)
    assert load(str(checkpoint), device="cpu").model.dtype == torch.bfloat16


@pytest.mark.parametrize("kind", ["qwen3-fp8", "gpt-oss-mxfp4"])
def test_weights_kept_on_disk_are_the_twins(kind, tmp_path):
    folders = write_pair(kind, tmp_path, apart=True, num_hidden_layers=2)
    where = {"model.layers.0": "cpu", "model.layers.1": "disk"}
    where |= dict.fromkeys(("model.embed_tokens", "model.norm", "lm_head"), "disk")
    where |= {"model.rotary_emb": "cpu"}
    first, second = (load(str(folder), device=where).model(IDS).logits for folder in folders)
    assert torch.equal(first, second)


def edit(checkpoint, **changes):
    path = checkpoint / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_tensors(checkpoint, change):
    path = checkpoint / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, {"format": "pt"})


WEIGHT = "model.layers.1.mlp.experts.3.up_proj.weight"


def unscaled(checkpoint):
    edit_tensors(checkpoint, lambda tensors: tensors.pop(f"{WEIGHT}_scale_inv"))


def weightless(checkpoint):
    edit_tensors(checkpoint, lambda tensors: tensors.pop(WEIGHT))


def wrongly_scaled(checkpoint):
    edit_tensors(checkpoint, lambda tensors: tensors.update({f"{WEIGHT}_scale_inv": torch.ones(1)}))


def undeclared(checkpoint):
    edit(checkpoint, quantization_config=None)


def cast(checkpoint):
    undeclared(checkpoint)
    edit_tensors(
        checkpoint,
        lambda tensors: [tensors.pop(name) for name in list(tensors) if name.endswith("_inv")],
    )


def pickled(checkpoint):
    tensors = load_file(checkpoint / "model.safetensors")
    torch.save(tensors, checkpoint / "pytorch_model.bin")
    (checkpoint / "model.safetensors").unlink()


def pickled_and_cast(checkpoint):
    cast(checkpoint)
    pickled(checkpoint)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (unscaled, rf"{WEIGHT} is stored in F8_E4M3 \[192, 160\], and has no scales, which FP8"),
        (weightless, f"{WEIGHT} in FP8 128x128: scales without a weight"),
        (wrongly_scaled, rf"{WEIGHT} in FP8 128x128: blocks of this size need scales \[2, 2\]"),
        (undeclared, r"is stored in F8_E4M3 \[.*\], and the checkpoint's configuration does not"),
        (cast, r"is stored in F8_E4M3 \[.*\], and the checkpoint's configuration does not"),
        (pickled, "weights in FP8 128x128 are read from safetensors files only"),
        (pickled_and_cast, r"is stored in float8_e4m3fn \[.*\], and the checkpoint's"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(checkpoint, damage, message):
    damage(checkpoint)
    with pytest.raises((UnsupportedModel, ModelNotFound), match=message) as caught:
        load(str(checkpoint), device="cpu")
    assert str(checkpoint) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("hf_quant_config.json", "modelopt"),
        ("quantize_config.json", "gptq"),
        ("quant_config.json", "awq"),
    ],
)
def test_settings_in_a_file_of_their_own_count(checkpoint, name, method):
    undeclared(checkpoint)
    before = model_key(Directory(checkpoint))
    (checkpoint / name).write_text(json.dumps({"nonsense": 1}))
    assert model_key(Directory(checkpoint)) != before
    assert name in Directory(checkpoint).names.small
    with pytest.raises(UnsupportedModel, match=f"stored by '{method}'"):
        describe(str(checkpoint))


MEASURED = """
import sys
from mbench.moe.load import describe, load
describe(sys.argv[1])
print("before", flush=True)
input()
load(sys.argv[1], device="cpu")
print("after", flush=True)
input()
"""


def memory_of_loading(folder):
    """The most bytes that a process of its own had in memory beyond those before loading."""
    seen = []
    command = [sys.executable, "-c", MEASURED, str(folder)]
    # Tensors of published sizes are mapped one by one; the allocator keeps what is freed of others.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, env=environment, **pipes) as process:
        for word, field in ((b"before", "VmRSS"), (b"after", "VmHWM")):
            assert process.stdout.readline().strip() == word
            status = Path(f"/proc/{process.pid}/status").read_text()
            seen.append(int(re.search(rf"{field}:\s+(\d+) kB", status)[1]) * 1024)
            process.stdin.write(b"go\n")
            process.stdin.flush()
    return seen[1] - seen[0]


@pytest.mark.parametrize(
    ("kind", "sizes"),
    [
        ("qwen3-fp8", {"num_experts": 4, "moe_intermediate_size": 512}),
        ("gpt-oss-mxfp4", {"num_local_experts": 4, "intermediate_size": 512}),
    ],
)
def test_loading_takes_hardly_more_memory_than_the_model(kind, sizes, tmp_path):
    folder, _ = write_pair(kind, tmp_path, hidden_size=512, num_hidden_layers=8, **sizes)
    size = describe(str(folder)).parameters * 2
    assert size > 50e6
    assert memory_of_loading(folder) < 1.4 * size
