"""A pruned model is smaller and computes what the masked one computes."""

from __future__ import annotations

import pytest
import torch

from helpers.prunable import IDS, PRUNABLE, built, draw
from helpers.tiny_models import COMMON, FAMILIES
from mbench.core.errors import UnsupportedModel
from mbench.moe.adapter import find_moe_layers
from mbench.moe.mask import masked
from mbench.moe.prune import prune


@pytest.mark.parametrize("family", PRUNABLE)
@pytest.mark.parametrize("kept", [1, 2, 4, 6])
def test_a_pruned_model_computes_what_the_masked_one_does(family, kept):
    model, layers = built(family)
    if kept < 2 * layers[0].groups and family in ("deepseek_v3", "glm4_moe"):
        # A single group, too, is rated by its two best experts.
        kept = max(kept, layers[0].groups)
        with pytest.raises(UnsupportedModel, match=f"TopkRouter cannot choose among {kept} of 8"):
            prune(model, layers, draw(layers, kept))
        return
    keep = draw(layers, kept)
    whole = model(IDS).logits
    smaller = prune(model, layers, keep)
    with masked(layers, keep):
        expected = model(IDS).logits
    torch.testing.assert_close(smaller(IDS).logits, expected)
    assert not torch.allclose(expected, whole)
    assert torch.equal(model(IDS).logits, whole)
    dropped = model.num_parameters() - smaller.num_parameters()
    row = COMMON["hidden_size"]
    assert dropped == len(layers) * (8 - kept) * (3 * 16 * row + row)
    assert not any(tensor.is_meta for tensor in (*smaller.parameters(), *smaller.buffers()))


def test_a_family_whose_configuration_does_not_count_its_experts_is_refused(monkeypatch):
    model, layers = built("mixtral")
    monkeypatch.setattr("mbench.moe.prune.EXPERT_COUNTS", ())
    message = r"MixtralForCausalLM: .* 4 experts does not give model\.layers\.0\.mlp"
    with pytest.raises(UnsupportedModel, match=message):
        prune(model, layers, draw(layers, 4))
    monkeypatch.undo()
    monkeypatch.setattr("mbench.moe.prune.TOP_K_FIELDS", ())
    with pytest.raises(UnsupportedModel, match="a token gets 2 of 2 experts"):
        prune(model, layers, draw(layers, 2))


def test_a_model_whose_weights_are_elsewhere_is_refused():
    with torch.device("meta"):
        model = FAMILIES["olmoe"]().to("meta")
    layers = find_moe_layers(model)
    with pytest.raises(UnsupportedModel, match="is not in memory"):
        prune(model, layers, draw(layers, 4))


def test_a_model_on_several_devices_is_refused(monkeypatch):
    model, layers = built("olmoe")
    placed = {"model.embed_tokens": 0, "model.layers": 0, "lm_head": 1}
    monkeypatch.setattr(model, "hf_device_map", placed, raising=False)
    with pytest.raises(UnsupportedModel, match=r"spread over devices \(0, 1\)"):
        prune(model, layers, draw(layers, 4))
