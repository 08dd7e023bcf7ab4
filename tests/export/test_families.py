"""Every family that is treated is exported in its own names, and pruned in memory."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from helpers.deepseek_moe import CONFIG, logits, random_tensors, write
from helpers.exported import export_first, results, tensors_of
from helpers.family_cases import TREATED, logits_of, model_and_layers, random_keep
from helpers.tiny_models import save
from mbench.core.errors import UnsupportedModel
from mbench.moe.mask import masked
from mbench.moe.prune import prune
from mbench.storage.safetensor_files import read_headers


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


def test_deepseek_moe_is_exported_under_its_original_names_if_asked_for(tmp_path):
    tensors = random_tensors(CONFIG)
    # The published files have the frequencies of every layer, which are computed today.
    tensors["model.layers.1.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
    (tmp_path / "full").mkdir()
    full = write(tmp_path / "full", CONFIG, tensors)
    keep = np.zeros((2, 8), dtype=bool)
    kept = {1: [1, 3, 4, 7], 2: [0, 2, 5, 6]}
    for row, layer in zip(keep, kept, strict=True):
        row[kept[layer]] = True
    done = export_first(results(full, keep), full, tmp_path / "out", form="original")
    assert done.left_out == ("model.layers.1.self_attn.rotary_emb.inv_freq",)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "In the original form (`deepseek`), for which transformers has no class" in card
    assert "library_name" not in card
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config == CONFIG | {"n_routed_experts": 4}
    ids = [5, 9, 33, 200, 77, 120]
    found = logits(config, tensors_of(tmp_path / "out"), ids, {1: [0, 1, 2, 3], 2: [0, 1, 2, 3]})
    expected = logits(CONFIG, tensors, ids, kept)
    torch.testing.assert_close(found, expected)
    export_first(results(full, keep), full, tmp_path / "stock")
    stock = AutoModelForCausalLM.from_pretrained(tmp_path / "stock", dtype="auto").eval()
    with torch.no_grad():
        found = stock(torch.tensor([ids])).logits[0].double()
    torch.testing.assert_close(found, expected, rtol=0.0, atol=2e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_shared_experts_are_doubled_without_rounding(dtype, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "mbench.storage.safetensor_files.BUFFER_BYTES", 64
    )  # several pieces a tensor
    tensors = {name: each.to(dtype) for name, each in random_tensors(CONFIG).items()}
    limits = torch.finfo(dtype)
    name = "model.layers.2.mlp.shared_experts.down_proj.weight"
    least = limits.smallest_normal * limits.eps  # the least subnormal number
    extreme = [limits.smallest_normal, -limits.max / 2, -0.0, 0.0, least]
    tensors[name].view(-1)[:5] = torch.tensor(extreme, dtype=dtype)
    full = write(tmp_path / "full", CONFIG, tensors)
    keep = np.ones((2, 8), dtype=bool)
    keep[:, 3] = False
    export_first(results(full, keep), full, tmp_path / "out")
    made = tensors_of(tmp_path / "out")
    doubled = made["model.layers.2.mlp.shared_expert.down_proj.weight"]
    assert doubled.dtype == dtype
    # A power of two times any of these numbers is exact in float64.
    assert torch.equal(doubled.double(), 2 * tensors[name].double())
    assert torch.equal(doubled.signbit(), tensors[name].signbit())
    gate = made["model.layers.2.mlp.shared_expert_gate.weight"]
    assert torch.equal(gate, torch.zeros(1, 32, dtype=dtype))
    up = "model.layers.2.mlp.shared_expert{}.up_proj.weight"
    assert torch.equal(made[up.format("")], tensors[up.format("s")])
    tensors[name].view(-1)[5] = limits.max
    full = write(tmp_path / "large", CONFIG, tensors)
    with pytest.raises(UnsupportedModel, match=f"{name} is too large to be doubled"):
        export_first(results(full, keep), full, tmp_path / "none")
    assert not (tmp_path / "none").exists()
