"""What becomes of every tensor of a checkpoint, by its names and shapes alone."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.torch import save_file

from helpers.prunable import built, draw
from mbench.core.errors import ModelNotFound, UnsupportedModel
from mbench.core.interfaces import ExpertMask
from mbench.export.tensors import prune_tensors
from mbench.storage.safetensor_files import StoredTensor, read_headers


def original_names(keep):
    """A checkpoint as DeepSeek published it, without bytes: names and shapes."""
    shapes = {"model.embed_tokens.weight": (64, 32), "lm_head.weight": (64, 32)}
    for layer in range(3):
        shapes[f"model.layers.{layer}.self_attn.rotary_emb.inv_freq"] = (4,)
        for kind in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"model.layers.{layer}.{kind}.weight"] = (32,)
        mlp = f"model.layers.{layer}.mlp"
        if layer:
            shapes[f"{mlp}.gate.weight"] = (8, 32)
            shapes[f"{mlp}.gate.e_score_correction_bias"] = (8,)
        parts = [f"experts.{i}." for i in range(8)] + ["shared_experts."] if layer else [""]
        for part in parts:
            for kind in ("gate_proj", "up_proj", "down_proj"):
                shapes[f"{mlp}.{part}{kind}.weight"] = (16, 32)
    return {name: StoredTensor(None, "F32", shape, 0, 4096) for name, shape in shapes.items()}


@pytest.mark.parametrize("conversions", ["of transformers", "none"])
def test_experts_one_by_one_need_no_conversion_to_be_recognised(monkeypatch, conversions):
    if conversions == "none":
        monkeypatch.setattr(
            "mbench.moe.checkpoint_tensors.get_model_conversion_mapping", lambda model: []
        )
    model, layers = built("glm4_moe")
    keep = draw(layers, 4)
    stored = original_names(keep)
    pruned = prune_tensors(model, layers, ExpertMask(keep), stored)
    made = {tensor.name: tensor for tensor in pruned.tensors}
    assert pruned.left_out == tuple(
        f"model.layers.{i}.self_attn.rotary_emb.inv_freq" for i in range(3)
    )
    dropped = {f"experts.{number}." for number in range(4, 8)}
    expected = {n for n in stored if "inv_freq" not in n and not any(d in n for d in dropped)}
    assert set(made) == expected
    last = np.flatnonzero(keep[1])[3]
    name = "model.layers.2.mlp.experts.{}.up_proj.weight"
    assert made[name.format(3)].stored is stored[name.format(last)]
    assert made["model.layers.1.mlp.gate.weight"].shape == (4, 32)
    assert made["model.layers.0.mlp.up_proj.weight"].kept is None


def test_a_checkpoint_that_fuses_its_experts_is_sliced(tmp_path):
    model, layers = built("qwen3_moe")
    keep = draw(layers, 4)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    stored = read_headers([tmp_path / "model.safetensors"])
    made = {t.name: t for t in prune_tensors(model, layers, ExpertMask(keep), stored).tensors}
    fused = made["model.layers.1.mlp.experts.gate_up_proj"]
    assert fused.kept == tuple(np.flatnonzero(keep[1]))
    assert fused.shape == (4, 32, 32)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"model.layers.1.mlp.experts.3.up_proj.weight": None}, ModelNotFound, "7 of 8 experts"),
        ({"model.layers.1.mlp.gate.weight": None}, ModelNotFound, r"no tensor for .*gate\.weight"),
        ({"model.layers.1.mlp.gate.weight": (9, 32)}, UnsupportedModel, "that of the 8 experts"),
        ({"model.layers.1.mlp.scale": (1,)}, UnsupportedModel, "class has no tensor .*scale"),
    ],
)
def test_a_checkpoint_that_is_not_understood_is_refused(change, error, message):
    model, layers = built("glm4_moe")
    keep = draw(layers, 4)
    stored = original_names(keep)
    stored |= {n: StoredTensor(None, "F32", s, 0, 4096) for n, s in change.items() if s}
    for name in [name for name, shape in change.items() if shape is None]:
        del stored[name]
    with pytest.raises(error, match=message):
        prune_tensors(model, layers, ExpertMask(keep), stored)
