"""Every family that is treated is exported in its own names, and pruned in memory."""

from __future__ import annotations

import pytest
import torch
from test_export import export_first, results
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
