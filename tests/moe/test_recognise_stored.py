"""Checkpoints as files: other stored forms, layouts and dtypes, and tensors more or fewer."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from helpers.deepseek_moe import CONFIG, random_tensors, write
from helpers.exported import export_first, results
from helpers.family_models import tiny_model
from helpers.pruned_pairs import sliced, sliced_files
from helpers.quantised_checkpoints import KINDS, write_pair
from helpers.tiny_models import qwen3_moe, save
from mbench.core.errors import ModelNotFound, UnsupportedModel
from mbench.moe.recognition.recognise import recognise

ORDER = [0, 2, 5, 6]
"""As many of each half, for routers that choose among two groups."""


_GLM = tiny_model("glm4_moe")


def orders(found):
    return [list(order) for order in found.order]


def configured(folder, **values):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | values))


@pytest.mark.parametrize("kind", KINDS)
def test_a_stored_form_is_compared_byte_for_byte_and_across_forms_by_likeness(tmp_path, kind):
    torch.manual_seed(0)
    quantised, _ = write_pair(kind, tmp_path)
    torch.manual_seed(0)
    plain = save(KINDS[kind].model(**KINDS[kind].changes).to(torch.bfloat16), tmp_path / "plain")
    small = sliced_files(quantised, tmp_path / "small", ORDER)
    if "deepseek" in kind:
        configured(small, num_experts_per_tok=2)  # all that the chosen group has left
    found = recognise(quantised, small)
    assert (found.differs, found.problems, orders(found)) == ((), (), [ORDER] * len(found.order))
    assert found.is_mask
    other = recognise(plain, small)
    assert orders(other) == [ORDER] * len(other.order)
    assert other.problems == ()
    stored, values, *_ = other.differs
    assert re.fullmatch(
        r"stored as (FP8|MXFP4|NVFP4|int[48]|[nf]+p?4).* instead of bfloat16", stored
    )
    assert re.fullmatch(r"expert values up to (less than 1|\d|1[0-3]) %", values)
    assert not any("router" in each for each in other.differs)


def test_settings_that_decide_no_number_are_no_difference(tmp_path):
    full, _ = write_pair("qwen3-fp8", tmp_path)
    small = sliced_files(full, tmp_path / "small", ORDER)
    configured(
        small, quantization_config={**KINDS["qwen3-fp8"].settings, "activation_scheme": "static"}
    )
    assert recognise(full, small).is_mask
    tensors = load_file(small / "model.safetensors")
    tensors["model.layers.0.mlp.experts.1.up_proj.weight_scale_inv"] *= 1.1
    save_file(tensors, small / "model.safetensors", {"format": "pt"})
    (values,) = recognise(full, small).differs
    assert values.startswith("expert values up to ")


def fused(folder, model):
    """The model's own names: all experts of a layer in one tensor."""
    save(model, folder)
    save_file(model.state_dict(), folder / "model.safetensors", {"format": "pt"})
    return folder


def test_how_experts_lie_in_the_files_does_not_matter(tmp_path):
    pair = sliced("qwen3_moe", 4)
    one_by_one, pruned = pair.write(tmp_path)
    together = fused(tmp_path / "fused", pair.full)
    assert {".experts." in name for name in load_file(together / "model.safetensors")} != {False}
    pruned_together = fused(tmp_path / "pruned_fused", pair.smaller())
    for full in (one_by_one, together):
        for small in (pruned, pruned_together):
            found = recognise(full, small)
            assert found.is_mask, found
            assert orders(found) == pair.order


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_another_dtype_is_told_and_its_equal_numbers_are_no_change(tmp_path, dtype):
    full = save(qwen3_moe().to(torch.bfloat16), tmp_path / "full")

    def cast(tensors):
        tensors |= {name: tensor.to(dtype) for name, tensor in tensors.items()}

    small = sliced_files(full, tmp_path / "small", ORDER, cast)
    name = str(dtype).removeprefix("torch.")
    found = recognise(full, small)
    assert found.differs == (f"stored as {name} instead of bfloat16",)
    configured(small, dtype=name)
    assert recognise(full, small).differs[1:] == (f"computed in {name} instead of bfloat16",)
    assert orders(found) == [ORDER] * 2


def without(*parts):
    def change(tensors):
        for name in [name for name in tensors if all(part in name for part in parts)]:
            del tensors[name]

    return change


def another(tensors):
    tensors["model.layers.0.mlp.scale"] = torch.ones(1)


CHANGED = {
    "norm missing": (without("model.norm"), "1 tensor fewer, e.g. model.norm.weight"),
    "head missing": (without("lm_head"), "1 tensor fewer, e.g. lm_head.weight"),
    "router missing": (without("layers.1.mlp.gate."), "router of 1 layer"),
    "unknown": (
        another,
        "1 tensor that the model's class does not know, e.g. model.layers.0.mlp.s",
    ),
}


@pytest.mark.parametrize("name", CHANGED)
def test_tensors_more_or_fewer_are_named(tmp_path, name):
    change, words = CHANGED[name]
    full = save(qwen3_moe(), tmp_path / "full")
    found = recognise(full, sliced_files(full, tmp_path / "small", ORDER, change))
    assert [words in each for each in found.differs] == [True]
    assert orders(found) == [ORDER] * 2
    assert not found.is_mask


def test_what_no_logit_depends_on_is_no_difference(tmp_path):
    """A head that is the embedding, layers for speculative decoding, fields of training."""
    full = save(tiny_model("deepseek_v3", tie_word_embeddings=True), tmp_path / "full")
    tensors = load_file(full / "model.safetensors")
    tensors["model.layers.61.eh_proj.weight"] = torch.ones(4, 4)
    save_file(tensors, full / "model.safetensors", {"format": "pt"})

    def change(tensors):
        del tensors["model.layers.61.eh_proj.weight"]
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()

    small = sliced_files(full, tmp_path / "small", ORDER, change)
    configured(small, num_nextn_predict_layers=0, initializer_range=0.5, use_cache=False)
    assert recognise(full, small).is_mask
    tensors = load_file(small / "model.safetensors")
    tensors["lm_head.weight"] += 1
    save_file(tensors, small / "model.safetensors", {"format": "pt"})
    assert recognise(full, small).differs == ("1 tensor, e.g. lm_head.weight",)


MISCOUNTED = {
    "uneven": (without("layers.1.", "experts.3."), 4, "layers hold 3 to 4 experts, config.json"),
    "more": (another, 3, "layers hold 4 experts, config.json says 3"),
    "half": (
        without("layers.0.", "experts.2.up_proj"),
        4,
        "layer 0: expert 2 lacks model.layers.0.mlp.experts.N.up_proj.weight",
    ),
    "a gap": (without("layers.1.", "experts.2."), 4, "layer 1: expert 2 is missing"),
}


@pytest.mark.parametrize("name", MISCOUNTED)
def test_layers_with_other_counts_of_experts_are_told(tmp_path, name):
    change, stated, words = MISCOUNTED[name]
    full = save(qwen3_moe(), tmp_path / "full")
    small = sliced_files(full, tmp_path / "small", ORDER, change)
    configured(small, num_local_experts=stated)
    found = recognise(full, small)
    assert words in found.problems[0]
    assert not found.is_mask
    assert (found.keep is None) == (name in ("a gap", "half"))
    if name == "uneven":
        assert orders(found) == [ORDER, ORDER[:3]]


def test_what_is_no_pair_is_refused_or_said(tmp_path):
    full = save(qwen3_moe(), tmp_path / "full")
    wider = save(qwen3_moe(moe_intermediate_size=32, num_experts=4), tmp_path / "wider")
    found = recognise(full, wider)
    assert found.problems == ("experts of another shape: down_proj [32, 32] instead of [32, 16]",)
    deeper = save(qwen3_moe(num_hidden_layers=3, num_experts=4), tmp_path / "deeper")
    assert recognise(full, deeper).problems == ("3 MoE layers, the full model has 2",)
    dense = save(qwen3_moe(mlp_only_layers=[0, 1]), tmp_path / "dense")
    with pytest.raises(UnsupportedModel, match="no layer has routed experts"):
        recognise(full, dense)
    lacking = sliced_files(full, tmp_path / "lacking", [*range(8)], without("experts.7."))
    with pytest.raises(ModelNotFound, match="layer 0: it holds 7 experts"):
        recognise(lacking, full)
    small = sliced_files(full, tmp_path / "small", ORDER)
    weights = small / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(ModelNotFound, match="truncated"):
        recognise(full, small)
    weights.unlink()
    with pytest.raises(UnsupportedModel, match="no safetensors files"):
        recognise(full, small)


def test_equal_experts_are_told_by_their_rows_of_the_router(tmp_path):
    """Of two experts with the same bytes, and of many that are nearly the same."""
    model = qwen3_moe()
    for layer in model.model.layers:
        for tensor in (layer.mlp.experts.gate_up_proj, layer.mlp.experts.down_proj):
            tensor[5] = tensor[2]
    full = save(model, tmp_path / "full")
    assert recognise(full, sliced_files(full, tmp_path / "small", [2, 3, 5, 7])).is_mask
    found = recognise(full, sliced_files(full, tmp_path / "one", [3, 5, 6, 7]))
    assert found.is_mask
    assert orders(found) == [[3, 5, 6, 7]] * 2

    def trained(tensors):
        for name in tensors:
            if name.endswith("mlp.gate.weight"):
                tensors[name] = tensors[name] * 1.5

    found = recognise(full, sliced_files(full, tmp_path / "unsure", [3, 5, 6, 7], trained))
    assert found.keep is None
    assert found.problems[0] == "layer 0: expert 1 cannot be told apart: 2 or 5 of the full model"


@pytest.mark.parametrize("rows", ["kept", "trained"])
def test_nearly_equal_experts_are_told_apart_only_as_far_as_they_can_be(tmp_path, rows):
    torch.manual_seed(0)
    model = qwen3_moe()
    for layer in model.model.layers:
        for tensor in (layer.mlp.experts.gate_up_proj, layer.mlp.experts.down_proj):
            tensor.copy_(tensor[:1] + 1e-4 * tensor)
    full = save(model, tmp_path / "full")

    def change(tensors):
        for name, tensor in tensors.items():
            if ".experts." in name:
                tensors[name] = tensor + 0.05 * tensor.std() * torch.randn(tensor.shape)
            if rows == "trained" and name.endswith("mlp.gate.weight"):
                tensors[name] = tensor + 0.01

    found = recognise(full, sliced_files(full, tmp_path / "small", ORDER, change))
    if rows == "kept":
        assert orders(found) == [ORDER] * 2
        assert found.differs == ("expert values up to 5 %",)
    else:
        assert found.keep is None
        assert all("cannot be told apart" in each for each in found.problems[:6])
    # Their bytes still tell them.
    assert recognise(full, sliced_files(full, tmp_path / "exact", ORDER)).is_mask


def test_experts_that_changed_their_group_are_another_router(tmp_path):
    """Of 8 experts in two groups, of which a token gets one."""
    full = save(tiny_model("deepseek_v3", n_group=2, topk_group=1, top_k=2), tmp_path / "full")

    def small(name, order):
        folder = sliced_files(full, tmp_path / name, order)
        configured(folder, num_experts_per_tok=2)
        return recognise(full, folder)

    assert small("even", [0, 3, 4, 5]).is_mask
    assert small("strayed", [0, 1, 3, 4]).differs == ("the router's groups of experts in 1 layer",)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_one_bit_anywhere_is_seen(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("bit")
    full = save(_GLM, folder / "full")

    def change(tensors):
        tensor = tensors[data.draw(st.sampled_from(sorted(tensors)))]
        octets = tensor.view(-1).view(torch.uint8)
        octets[data.draw(st.integers(0, len(octets) - 1))] ^= 1 << data.draw(st.integers(0, 7))

    assert not recognise(full, sliced_files(full, folder / "small", ORDER, change)).is_mask
    assert recognise(full, sliced_files(full, folder / "same", ORDER)).is_mask


def test_deepseek_moe_is_compared_in_its_own_names_and_as_another_family(tmp_path):
    """In several files, some of whose tensors go through conversions."""
    full = write(tmp_path / "full", CONFIG, random_tensors(CONFIG))
    keep = np.zeros((2, 8), dtype=bool)
    keep[0, [1, 2, 4, 6]] = keep[1, [0, 3, 4, 7]] = True
    found = {}
    for form in ("original", "transformers"):
        export_first(results(full, keep), full, tmp_path / form, form=form)
        found[form] = recognise(full, tmp_path / form)
        np.testing.assert_array_equal(found[form].keep, keep)
    assert found["original"].is_mask
    assert found["transformers"].differs[0] == (
        "computed by Qwen2MoeForCausalLM instead of DeepseekForCausalLM"
    )
