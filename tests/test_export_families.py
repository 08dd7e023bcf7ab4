"""Every family that is treated is exported in its own names, and pruned in memory."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from deepseek_moe import CONFIG, logits, random_tensors, write
from test_export import export_first, results, tensors_of
from test_families import TREATED, logits_of, model_and_layers, random_keep
from tiny_models import save
from transformers import AutoModelForCausalLM

from mbench.moe.mask import masked
from mbench.moe.prune import prune
from mbench.safetensor_files import read_headers


@pytest.mark.parametrize("case", TREATED)
@torch.no_grad()
def test_what_is_pruned_or_exported_computes_what_the_masked_model_does(case, tmp_path):
    model, layers = model_and_layers(case)
    keep = random_keep(layers, layers[0].num_experts // 2, seed=5)
    with masked(layers, keep):
        expected = logits_of(model)
    assert not torch.allclose(expected, logits_of(model))
    torch.testing.assert_close(logits_of(prune(model, layers, keep)), expected)
    full = save(model, tmp_path / "full")
    done = export_first(results(full, keep), full, tmp_path / "out")
    assert done.pruned.parameters < done.full.parameters
    names = [set(read_headers(path.glob("*.safetensors"))) for path in (full, tmp_path / "out")]
    assert names[1] <= names[0]
    loaded, report = AutoModelForCausalLM.from_pretrained(
        tmp_path / "out", dtype="auto", output_loading_info=True
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    torch.testing.assert_close(logits_of(loaded.eval()), expected)


def test_deepseek_moe_is_exported_under_its_original_names(tmp_path):
    tensors = random_tensors(CONFIG)
    # The published files have the frequencies of every layer, which are computed today.
    tensors["model.layers.1.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
    (tmp_path / "full").mkdir()
    full = write(tmp_path / "full", CONFIG, tensors)
    keep = np.zeros((2, 8), dtype=bool)
    kept = {1: [1, 3, 4, 7], 2: [0, 2, 5, 6]}
    for row, layer in zip(keep, kept, strict=True):
        row[kept[layer]] = True
    done = export_first(results(full, keep), full, tmp_path / "out")
    assert done.left_out == ("model.layers.1.self_attn.rotary_emb.inv_freq",)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config == CONFIG | {"n_routed_experts": 4}
    ids = [5, 9, 33, 200, 77, 120]
    found = logits(config, tensors_of(tmp_path / "out"), ids, {1: [0, 1, 2, 3], 2: [0, 1, 2, 3]})
    torch.testing.assert_close(found, logits(CONFIG, tensors, ids, kept))
