"""Offloaded models give the very bits of models in memory: profiles, masks, and both together."""

from __future__ import annotations

import gc
import logging
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import cpu_offload

from helpers import deepseek_moe
from helpers.drawn_masks import constants_mask, merged_mask
from helpers.tiny_models import FAMILIES, qwen2_moe, random_sequences, save
from mbench.core.basics import RoutingSums
from mbench.core.errors import UnsupportedModel
from mbench.core.interfaces import ExpertMask, Statistic
from mbench.evaluate.lm_head import split
from mbench.moe import offload
from mbench.moe.adapter import find_moe_layers
from mbench.moe.experts import fast_experts
from mbench.moe.load import load
from mbench.moe.mask import masked
from mbench.moe.offload import settle
from mbench.moe.profile import profile_model

SEQUENCES = random_sequences([10, 7, 12, 3])
IDS = torch.tensor([[5, 6, 7, 9, 40, 12, 33]])


class AllOutputs(Statistic):
    """Reads what only the experts' and the router's weights can give."""

    name = "all-outputs"

    def measure(self, batch):
        outputs = batch.expert_outputs(torch.arange(len(batch.hidden)))
        return {"norms": outputs.norm(dim=-1).sum(dim=0), "logits": batch.router_logits().sum(0)}


def checkpoint_of(family, directory):
    if family == "deepseek":
        config = deepseek_moe.CONFIG
        return deepseek_moe.write(directory, config, deepseek_moe.random_tensors(config))
    if family == "tied":
        return save(qwen2_moe(tie_word_embeddings=True), directory)
    return save(FAMILIES[family](), directory)


@pytest.fixture(autouse=True)
def _temporary_files(tmp_path, monkeypatch, caplog):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    caplog.set_level(logging.ERROR, logger="accelerate.big_modeling")


def placed(model, layers_on_disk):
    """A map with some layers, the embeddings and the head on disk, and the others in memory."""
    layers = range(model.config.num_hidden_layers)
    where = {f"model.layers.{i}": "disk" if i in layers_on_disk else "cpu" for i in layers}
    ends = dict.fromkeys(("model.embed_tokens", "model.norm", "lm_head"), "disk")
    return where | ends | {"model.rotary_emb": "cpu"}


@torch.no_grad()
def everything(model, layers):
    """What a run takes from a model: a profile, and logits unpruned and under masks."""
    statistics = [RoutingSums(), AllOutputs()]
    sums = profile_model(model, layers, SEQUENCES, statistics, batch_size=2, shards=2).sums
    found = [array for arrays in sums.values() for _, array in sorted(arrays.items())]
    few = np.zeros((len(layers), layers[0].num_experts), dtype=bool)
    few[0, [1, 4, 6, 7]] = few[1:, [0, 2, 3, 5]] = True
    fewer_than_a_token_gets = np.zeros_like(few)
    fewer_than_a_token_gets[:, [2, 5]] = True
    for mask in (few, fewer_than_a_token_gets):
        for mode in ("sliced", "preserved"):
            with fast_experts(layers), masked(layers, mask, mode):
                found.append(model(IDS).logits.numpy())
                parts = split(model, IDS)
                found.append(parts.head(parts.body(input_ids=IDS).last_hidden_state).numpy())
    uneven = few.copy()
    uneven[0, 0] = True
    for mask in (ExpertMask(uneven), constants_mask(layers, uneven, np.random.default_rng(0))):
        with masked(layers, mask):
            found.append(model(IDS).logits.numpy())
    return [*found, model(IDS).logits.numpy()]


def assert_identical(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("layers_on_disk", [{0, 1, 2}, {1}], ids=["all", "one"])
@pytest.mark.parametrize("family", ["qwen2_moe", "mixtral", "tied", "deepseek"])
def test_weights_on_disk_change_nothing(family, layers_on_disk, tmp_path):
    path = str(checkpoint_of(family, tmp_path / "checkpoint"))
    whole = load(path, device="cpu")
    parts = load(path, device=placed(whole.model, layers_on_disk))
    away = [layer.experts.down_proj.device.type == "meta" for layer in parts.layers]
    assert any(away)
    assert all(layer.router.weight.device.type == "cpu" for layer in parts.layers)
    expected = everything(whole.model, whole.layers)
    assert_identical(everything(parts.model, parts.layers), expected)
    assert [layer.experts.down_proj.device.type == "meta" for layer in parts.layers] == away


def test_weights_in_the_cpus_memory_change_nothing(tmp_path):
    """As for an accelerator that is too small; here it is the CPU itself that computes."""
    path = str(save(qwen2_moe(), tmp_path / "checkpoint"))
    whole, parts = load(path, device="cpu"), load(path, device="cpu")
    cpu_offload(parts.model, execution_device=torch.device("cpu"))
    settle(parts.model, parts.layers)
    assert parts.layers[1].experts.down_proj.device.type == "meta"
    expected = everything(whole.model, whole.layers)
    assert_identical(everything(parts.model, parts.layers), expected)
    mask = merged_mask(parts.layers, np.eye(2, 8, dtype=bool), np.random.default_rng(0))
    with pytest.raises(UnsupportedModel, match=r"layers\.\d\..* is offloaded, so experts"):
        masked(parts.layers, mask).__enter__()
    assert_identical(everything(parts.model, parts.layers), expected)


def test_half_precision_is_kept_on_disk_too(tmp_path):
    path = str(save(qwen2_moe().to(torch.bfloat16), tmp_path / "checkpoint"))
    for dtype in ("auto", "float32"):
        whole = load(path, device="cpu", dtype=dtype)
        parts = load(path, device=placed(whole.model, {0, 1}), dtype=dtype)
        with torch.no_grad():
            assert torch.equal(parts.model(IDS).logits, whole.model(IDS).logits)


def test_what_does_not_fit_is_kept_on_disk_until_the_model_is_gone(tmp_path, monkeypatch):
    path = str(save(qwen2_moe(), tmp_path / "checkpoint"))
    whole = load(path, device="auto")
    assert not hasattr(whole.model, "hf_device_map") or "disk" not in whole.model.hf_device_map
    size = sum(each.nbytes for each in whole.model.parameters())
    room = {"cpu": size // 2}
    monkeypatch.setattr(offload, "get_max_memory", lambda: room)
    monkeypatch.setattr("transformers.integrations.accelerate.get_max_memory", lambda _: room)
    monkeypatch.setattr(
        "transformers.integrations.accelerate.get_balanced_memory", lambda *_, **__: room
    )
    parts = load(path, device="auto")
    assert "disk" in parts.model.hf_device_map.values()
    assert any(Path(tempfile.gettempdir()).rglob("*.safetensors"))
    with torch.no_grad():
        assert torch.equal(parts.model(IDS).logits, whole.model(IDS).logits)
    del parts
    gc.collect()
    assert not list(Path(tempfile.gettempdir()).iterdir())


def test_a_router_that_is_offloaded_cannot_be_masked():
    model = qwen2_moe()
    layers = find_moe_layers(cpu_offload(model, execution_device=torch.device("cpu")))
    keep = np.ones((2, 8), dtype=bool)
    keep[:, 0] = False
    with (
        pytest.raises(UnsupportedModel, match=r"layers.0.mlp.experts: its router is offloaded"),
        masked(layers, keep),
    ):
        pass


@pytest.mark.parametrize(("room", "place"), [(999, "auto"), (2000, {"": "cpu"})])
def test_memory_that_a_gpu_shares_is_the_cpus_too(room, place, monkeypatch):
    monkeypatch.setattr(offload, "get_max_memory", lambda: {"mps": room})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert offload.device_map_for("auto", 1000) == place
