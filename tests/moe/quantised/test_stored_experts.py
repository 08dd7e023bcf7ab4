"""Experts that stay stored in memory compute the very numbers of those that do not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from helpers.drawn_masks import merged_mask
from helpers.quantised_checkpoints import write_pair
from helpers.tiny_models import random_sequences
from mbench.core.basics import RoutingSums
from mbench.core.errors import UnsupportedModel
from mbench.core.interfaces import Statistic
from mbench.moe.experts import fast_experts
from mbench.moe.load import load
from mbench.moe.mask import masked
from mbench.moe.profile import profile_model
from mbench.moe.prune import prune
from mbench.moe.quantised.stored_experts import StoredExperts
from mbench.moe.weights import layer_weights

IDS = torch.arange(3, 35)[None]
KINDS = ("qwen3-fp8", "qwen3-fp8-bf16-scales", "qwen3-fp8-whole", "deepseek-fp8")


class AllOutputs(Statistic):
    """Reads what only the experts' weights can give."""

    name = "all-outputs"

    def measure(self, batch):
        outputs = batch.expert_outputs(torch.arange(len(batch.hidden)))
        return {"norms": outputs.norm(dim=-1).sum(dim=0)}


@pytest.fixture(scope="module", params=KINDS)
def folder(request, tmp_path_factory):
    written = write_pair(request.param, tmp_path_factory.mktemp(request.param), apart=True)
    return str(written[0])


@torch.no_grad()
def everything(loaded):
    """Logits as stock code and as the fast loop compute them, under a mask, a profile, weights."""
    found = [loaded.model(IDS).logits]
    keep = np.zeros((len(loaded.layers), 8), dtype=bool)
    keep[:, [0, 1, 4, 6]] = True
    with fast_experts(loaded.layers):
        found.append(loaded.model(IDS).logits)
        for mode in ("sliced", "preserved") if loaded.layers[0].groups == 1 else ("sliced",):
            with masked(loaded.layers, keep, mode):
                found.append(loaded.model(IDS).logits)
    statistics = [RoutingSums(), AllOutputs()]
    sequences = random_sequences([10, 7, 12, 3])
    profile = profile_model(loaded.model, loaded.layers, sequences, statistics, batch_size=2)
    for arrays in profile.sums.values():
        found += [torch.from_numpy(np.asarray(arrays[name])) for name in sorted(arrays)]
    for layer in loaded.layers:
        expert = layer_weights(layer).expert(5)
        found += [expert.gate, expert.up, expert.down]
    return found


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_stored_experts_compute_the_same_bits(folder, dtype):
    computed, stored = (
        load(folder, dtype=dtype, device="cpu", experts=experts)
        for experts in ("computed", "stored")
    )
    for ours, expected in zip(everything(stored), everything(computed), strict=True):
        assert ours.dtype == expected.dtype
        assert torch.equal(ours, expected)
    assert type(stored.model) is type(computed.model)
    assert [layer.num_experts for layer in stored.layers] == [8] * len(stored.layers)


def bytes_of(loaded):
    experts = [layer.experts for layer in loaded.layers]
    return sum(p.numel() * p.element_size() for module in experts for p in module.parameters())


def test_they_take_half_the_memory(folder):
    computed, stored = (
        load(folder, device="cpu", experts=experts) for experts in ("computed", "stored")
    )
    codes = sum(
        layer.experts.stored[name].experts * each.sources * each.rows * each.columns
        for layer in stored.layers
        for name, each in layer.experts.stored.items()
    )
    assert bytes_of(computed) == 2 * codes
    assert codes < bytes_of(stored) < 1.02 * codes + 4 * 8 * 3 * 2 * 9


def test_loading_decodes_none_of_them(folder, monkeypatch):
    on_devices, weights = set(), StoredExperts.weights

    def watched(self, name):
        numbers = weights(self, name)
        on_devices.add(numbers.device.type)
        return numbers

    monkeypatch.setattr(StoredExperts, "weights", watched)
    load(folder, device="cpu", experts="stored")
    assert on_devices <= {"meta"}


@pytest.mark.parametrize(
    ("kind", "which", "message"),
    [
        ("gpt-oss-mxfp4", 0, r"is for weights in FP8 .* those here are stored in MXFP4"),
        ("qwen3-fp8", 1, r"is for weights in FP8 .* those here are plain numbers"),
    ],
)
def test_other_forms_cannot_stay_stored(tmp_path, kind, which, message):
    folder = str(write_pair(kind, tmp_path)[which])
    with pytest.raises(UnsupportedModel, match=message) as caught:
        load(folder, device="cpu", experts="stored")
    assert folder in str(caught.value)


def test_what_needs_weights_that_are_numbers_is_refused(tmp_path):
    folder = str(write_pair("qwen3-fp8", tmp_path)[0])
    loaded = load(folder, device="cpu", experts="stored")
    keep = np.ones((2, 8), dtype=bool)
    keep[:, 3] = False
    mask = merged_mask(loaded.layers, keep, np.random.default_rng(0))
    with (
        pytest.raises(UnsupportedModel, match="kept as stored in FP8"),
        masked(loaded.layers, mask, "sliced"),
    ):
        pass
    with pytest.raises(UnsupportedModel, match="kept as stored in FP8"):
        prune(loaded.model, loaded.layers, keep)
    with pytest.raises(UnsupportedModel, match="room for the whole model"):
        load(folder, device={"model": "disk", "lm_head": "cpu"}, experts="stored")
