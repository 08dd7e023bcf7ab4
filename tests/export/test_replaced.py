"""Uneven, merged and replaced experts: masked, exported and loaded again are one model."""

from __future__ import annotations

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

import mbench
from helpers.deepseek_moe import CONFIG, random_tensors, write
from helpers.drawn_masks import constants_mask, merged_mask, uneven_keep
from helpers.exported import export_first, results, tensors_of
from helpers.family_cases import TREATED, logits_of, model_and_layers, random_keep
from helpers.prunable import IDS
from helpers.tiny_models import save
from mbench.core.errors import MbenchError, ModelNotFound, UnsupportedModel
from mbench.core.interfaces import ExpertMask
from mbench.moe.load import load
from mbench.moe.mask import masked

KINDS = ("uneven", "merged", "uneven-merged", "mapped", "constants")


UNCLEAR = ("inkling2_text", "nemotron_h")
"""Stored with gates and values alternating, and with as many hidden as inner neurons."""


def drawn(layers, kind, seed=0, aligned=True):
    generator = np.random.default_rng(seed)
    keep = uneven_keep(layers, generator)
    if kind == "uneven":
        return ExpertMask(keep)
    if kind == "constants":
        return constants_mask(layers, keep, generator)
    if kind == "merged":
        keep = random_keep(layers, layers[0].num_experts // 2)
    router = "mapped" if kind == "mapped" else "sliced"
    return merged_mask(layers, keep, generator, router, aligned)


def exported(case, mask, folder):
    # Some families' tokenizers add a token of their own.
    full = save(model_and_layers(case)[0], folder / "full", count=60)
    found = results(full, mask.keep, stand_in=mask.stand_in)
    return export_first(found, full, folder / "out")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", TREATED)
@torch.no_grad()
def test_what_is_exported_computes_what_the_masked_model_does(case, kind, tmp_path):
    model, layers = model_and_layers(case)
    mask = drawn(layers, kind)
    if case in UNCLEAR and isinstance(mask.stand_in, mbench.Merged):
        with pytest.raises(UnsupportedModel, match="which inner neuron is not known"):
            exported(case, mask, tmp_path)
        mask = drawn(layers, kind, aligned=False)
    with masked(layers, mask):
        expected = logits_of(model)
    done = exported(case, mask, tmp_path)
    out = tmp_path / "out"
    assert done.pruned.parameters < done.full.parameters
    # A single layer cannot differ from others.
    assert done.kind == (kind if len(layers) > 1 else kind.replace("uneven-", "").replace("un", ""))
    written = sum(path.stat().st_size for path in out.glob("*.safetensors"))
    assert done.pruned.bytes <= written < done.full.bytes
    if done.is_stock:
        loaded = AutoModelForCausalLM.from_pretrained(out, dtype="auto").eval()
    else:
        with pytest.raises(ValueError, match="mbench_pruned"):
            AutoModelForCausalLM.from_pretrained(out)
        with pytest.raises(OSError, match=r"no file named model\.safetensors"):
            type(model).from_pretrained(out)
        with pytest.raises(UnsupportedModel, match=r"mbench\.load_pruned loads it"):
            load(str(out), device="cpu")
        again = mbench.load_pruned(out, device="cpu")
        loaded = again.model
        assert type(loaded) is type(model)
        if case == "olmoe":
            assert again.tokenizer("w5 w7").input_ids == [5, 7]
            with pytest.raises(UnsupportedModel, match="copy its folder"):
                loaded.save_pretrained(tmp_path / "stock")
        constants = 0 if kind != "constants" else mask.stand_in.outputs[~mask.keep].size
        assert loaded.num_parameters() + constants <= done.pruned.parameters
    torch.testing.assert_close(logits_of(loaded), expected)


@pytest.mark.parametrize("form", ["transformers", "original"])
@pytest.mark.parametrize("kind", ["even", "merged", "uneven", "mapped", "constants"])
@torch.no_grad()
def test_deepseek_moe_has_both_of_its_forms(kind, form, tmp_path):
    full = write(tmp_path / "full", CONFIG, random_tensors(CONFIG))
    loaded = load(str(full), device="cpu")
    mask = drawn(loaded.layers, kind if kind != "even" else "uneven")
    if kind == "even":
        mask = ExpertMask(np.ones_like(mask.keep) & (np.arange(8) != 3))
    found = results(full, mask.keep, stand_in=mask.stand_in)
    export_first(found, full, tmp_path / "out", form=form)
    with masked(loaded.layers, mask):
        expected = loaded.model(IDS).logits
    load_again = load if kind in ("even", "merged") else mbench.load_pruned
    again = load_again(str(tmp_path / "out"), device="cpu").model
    torch.testing.assert_close(again(IDS).logits, expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_matched_neurons_are_found_in_the_files_as_in_memory(tmp_path):
    for case in ("olmoe", "gpt_oss", "granitemoe", "mixtral"):
        model, layers = model_and_layers(case)
        mask = drawn(layers, "merged", aligned=False)
        merged = dataclasses.replace(mask.stand_in, neurons="matched")
        mask = dataclasses.replace(mask, stand_in=merged)
        with masked(layers, mask):
            expected = logits_of(model)
        exported(case, mask, tmp_path / case)
        loaded = AutoModelForCausalLM.from_pretrained(tmp_path / case / "out", dtype="auto").eval()
        torch.testing.assert_close(logits_of(loaded), expected)


def test_a_folder_has_only_what_is_kept_and_says_what_it_is(tmp_path):
    _, layers = model_and_layers("olmoe")
    mask = drawn(layers, "constants")
    exported("olmoe", mask, tmp_path)
    out = tmp_path / "out"
    before, after = tensors_of(tmp_path / "full"), tensors_of(out)
    np.testing.assert_array_equal(after.pop("outputs"), mask.stand_in.outputs[~mask.keep])
    for layer, row in enumerate(mask.keep):
        kept = np.flatnonzero(row).tolist()
        prefix = f"model.layers.{layer}.mlp"
        assert torch.equal(after[f"{prefix}.gate.weight"], before[f"{prefix}.gate.weight"])
        for new, old in enumerate(kept):
            name = prefix + ".experts.{}.up_proj.weight"
            assert torch.equal(after[name.format(new)], before[name.format(old)])
        assert name.format(len(kept)) not in after
    said = json.loads((out / "expert_mask.json").read_text())
    assert said["replacement"] == {"kind": "constants"}
    assert said["content_hash"] == mask.content_hash
    config = json.loads((out / "full_config.json").read_text())
    assert config == json.loads((tmp_path / "full" / "config.json").read_text())
    card = (out / "README.md").read_text()
    few, many = sorted(mask.keep.sum(axis=1).tolist())
    assert f"{few} to {many} of the 8 routed experts" in card
    assert "give a constant instead of an output; routers keep all rows" in card
    assert "- transformers: refuses it: no configuration says that constants stand in" in card
    assert "- mbench: loads it with `mbench.load_pruned(folder)`" in card
    assert "library_name" not in card


def test_what_is_not_whole_is_not_exported_or_loaded(tmp_path):
    _, layers = model_and_layers("olmoe")
    mask = drawn(layers, "mapped")
    full = save(model_and_layers("olmoe")[0], tmp_path / "full")
    found = results(full, mask.keep, stand_in=mask.stand_in)
    lacking = dataclasses.replace(found, stand_ins={})
    with pytest.raises(MbenchError, match="results lack what stands in for the experts"):
        export_first(lacking, full, tmp_path / "none")
    assert not (tmp_path / "none").exists()
    with pytest.raises(UnsupportedModel, match="is not in mbench's own form"):
        mbench.load_pruned(full)
    for name, message in (
        ("model.mbench.safetensors", r"no file named model\.mbench\.safetensors"),
        ("expert_mask.json", "expert_mask.json"),
        ("full_config.json", "full_config.json is missing"),
        ("config.json", "config.json"),
    ):
        out = tmp_path / name
        export_first(found, full, out)
        (out / name).unlink()
        with pytest.raises(ModelNotFound, match=message):
            mbench.load_pruned(out)
    weights = tmp_path / "expert_mask.json" / "model.mbench.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    shutil.copy(tmp_path / "config.json" / "expert_mask.json", weights.parent)
    with pytest.raises(ModelNotFound, match=r"is truncated|is damaged"):
        mbench.load_pruned(weights.parent)
    # Another mask than that of the weights.
    out = tmp_path / "other"
    export_first(found, full, out)
    said = json.loads((out / "expert_mask.json").read_text())
    path = layers[0].path
    said["kept"][path] = said["kept"][path][:-1]
    (out / "expert_mask.json").write_text(json.dumps(said))
    with pytest.raises((ModelNotFound, ValueError)):
        mbench.load_pruned(out)
