"""Checkpoints in fewer bits are exported as they are stored: the same bytes and logits."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from helpers.deepseek_moe import CONFIG, random_tensors, write
from helpers.drawn_masks import constants_mask, merged_mask, uneven_keep
from helpers.exported import export_first, results, tensors_of
from helpers.family_cases import random_keep
from helpers.prunable import IDS
from helpers.quantised_checkpoints import FP8, KINDS, fp8_blocks, write_pair
from mbench import load_pruned
from mbench.core.errors import ModelNotFound, UnsupportedModel
from mbench.core.interfaces import ExpertMask
from mbench.core.stand_ins import Merged
from mbench.moe.load import load
from mbench.moe.mask import masked
from mbench.moe.stored_size import stored_size

MASKS = ("even", "uneven", "constants", "mapped")
NUMBER = re.compile(r"(.*\.experts\.)(\d+)(\..*)")


def drawn(layers, kind, seed=0):
    generator = np.random.default_rng(seed)
    if kind == "even":
        return ExpertMask(random_keep(layers, 4, seed))
    keep = uneven_keep(layers, generator)
    if kind == "uneven":
        return ExpertMask(keep)
    if kind == "constants":
        return constants_mask(layers, keep, generator)
    # Tokens of dropped experts go to others, of which none is changed.
    into = np.where(keep, np.arange(keep.shape[1]), keep.argmax(axis=1)[:, None])
    return ExpertMask(keep, (), Merged(into.astype(np.int64), keep.astype(np.float32)))


def bytes_of(tensor):
    return tensor.contiguous().view(torch.uint8) if tensor.dim() else tensor


def experts_of(folder):
    """Layer's path -> experts that are kept, from the mask beside an export."""
    return json.loads((folder / "expert_mask.json").read_text())["kept"]


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_what_is_exported_has_the_same_bytes_and_logits(kind, mask, tmp_path):
    full, twin = write_pair(kind, tmp_path)
    loaded = load(str(full), dtype="float32", device="cpu")
    drawn_mask = drawn(loaded.layers, mask)
    with masked(loaded.layers, drawn_mask):
        expected = loaded.model(IDS).logits
    out = tmp_path / "out"
    done = export_first(results(full, drawn_mask.keep, stand_in=drawn_mask.stand_in), full, out)
    reload = load if done.is_stock else load_pruned
    assert torch.equal(reload(str(out), dtype="float32", device="cpu").model(IDS).logits, expected)

    before, after = tensors_of(full), tensors_of(out)
    constants = after.pop("outputs", torch.empty(0))
    kept_of = experts_of(out)
    sources = {}
    for name, tensor in after.items():
        path = next((path for path in kept_of if path.rpartition(".")[0] in name), None)
        match = NUMBER.fullmatch(name)
        if path is None or "shared_experts" in name:
            sources[name], same = name, before[name]
        elif match:
            sources[name] = f"{match[1]}{kept_of[path][int(match[2])]}{match[3]}"
            same = before[sources[name]]
        else:  # experts in one tensor, or a router
            whole = mask in ("constants", "mapped") and ".experts." not in name
            sources[name], same = name, before[name] if whole else before[name][kept_of[path]]
        assert tensor.dtype == same.dtype
        assert torch.equal(bytes_of(tensor), bytes_of(same)), name
    assert len(set(sources.values())) == len(after)
    dropped = {name for name in before if name not in sources.values()}
    assert all(NUMBER.fullmatch(name) for name in dropped)

    whole_router = mask in ("constants", "mapped")
    left = stored_size(full).bytes_left(drawn_mask.keep, whole_router=whole_router)
    assert left == sum(tensor.nbytes for tensor in after.values())
    assert done.pruned.bytes == left + constants.nbytes
    assert done.full.bytes == sum(tensor.nbytes for tensor in before.values())
    plain = export_first(
        results(twin, drawn_mask.keep, stand_in=drawn_mask.stand_in), twin, tmp_path / "plain"
    )
    left = stored_size(twin).bytes_left(drawn_mask.keep, whole_router=whole_router)
    assert plain.pruned.bytes == left + constants.nbytes
    assert done.full.parameters == plain.full.parameters
    assert done.pruned.parameters == plain.pruned.parameters
    assert done.dtype == "bfloat16"


KEPT = [1, 2, 5, 6]


def keep():
    keep = np.zeros((2, 8), dtype=bool)
    keep[0, KEPT] = keep[1, [0, 1, 2, 3]] = True
    return keep


EVEN = {"hidden_size": 128, "moe_intermediate_size": 128, "intermediate_size": 128}
EVEN |= {"head_dim": 32, "num_key_value_heads": 4}


@pytest.mark.parametrize(("kind", "changes"), [("qwen3-fp8", EVEN), ("gpt-oss-mxfp4", {})])
@torch.no_grad()
def test_stock_transformers_reads_what_it_can_read(kind, changes, tmp_path):
    """Its own reading of FP8 holds where blocks divide every weight."""
    full, _ = write_pair(kind, tmp_path, **changes)
    export_first(results(full, keep()), full, tmp_path / "out")
    stock, report = AutoModelForCausalLM.from_pretrained(
        tmp_path / "out", dtype=torch.bfloat16, output_loading_info=True
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    own = load(str(tmp_path / "out"), dtype="bfloat16", device="cpu").model
    tensors = stock.state_dict()
    assert all(torch.equal(tensors[name], t) for name, t in own.state_dict().items())
    assert torch.equal(stock.eval()(IDS).logits, own(IDS).logits)


def with_settings(folder, **settings):
    file = folder / "config.json"
    config = json.loads(file.read_text())
    config["quantization_config"] |= settings
    file.write_text(json.dumps(config))


def with_tensors(folder, **changes):
    """`changes` by name of a tensor, with __ for dots; None: without it."""
    file = folder / "model.safetensors"
    tensors = load_file(file)
    for name, tensor in changes.items():
        tensors[name.replace("__", ".")] = tensor
    save_file({name: t for name, t in tensors.items() if t is not None}, file)


def test_experts_that_settings_name_are_numbered_anew(tmp_path):
    full, _ = write_pair("qwen3-fp8", tmp_path)
    name = "model.layers.{}.mlp.experts.{}"
    patterns = ["re:.*mlp.gate$", "model.layers.*.mlp.experts.*.k_proj", "lm_head"]
    names = [name.format(0, e) for e in (0, 1, 6, 7)] + [name.format(1, 6) + ".up_proj"]
    with_settings(full, modules_to_not_convert=[*patterns, *names, name.format(1, 2) + ".up_proj"])
    own = {"quantization": {"exclude_modules": [name.format(0, 5), "lm_head"], "x": [1, None]}}
    own["layers"] = {name.format(0, e): {"bits": 8} for e in (4, 5)}
    (full / "hf_quant_config.json").write_text(json.dumps(own))
    (full / "quantize_config.json").write_text('{"bits":8}')
    export_first(results(full, keep()), full, tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["quantization_config"] == {
        "quant_method": "fp8",
        "fmt": "e4m3",
        "activation_scheme": "dynamic",
        "weight_block_size": [128, 128],
        "modules_to_not_convert": [
            *patterns,
            name.format(0, 0),
            name.format(0, 3),
            name.format(1, 2) + ".up_proj",
        ],
    }
    assert json.loads((tmp_path / "out" / "hf_quant_config.json").read_text()) == {
        "quantization": {"exclude_modules": [name.format(0, 2), "lm_head"], "x": [1, None]},
        "layers": {name.format(0, 2): {"bits": 8}},
    }
    assert (tmp_path / "out" / "quantize_config.json").read_text() == '{"bits":8}'


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (r"re:.*experts\.(1|6)\..*", "tells experts apart by their numbers"),
        ("model.layers.0.mlp.experts.[0-3].*", "tells experts apart by their numbers"),
        ("layers.0.mlp.experts.3", "is no expert of the checkpoint"),
        ("model.layers.0.mlp.experts.8", "is no expert of the checkpoint"),
    ],
)
def test_names_that_cannot_be_numbered_anew_are_refused(entry, message, tmp_path):
    full, _ = write_pair("qwen3-fp8", tmp_path)
    with_settings(full, modules_to_not_convert=[entry])
    with pytest.raises(UnsupportedModel, match=message) as error:
        export_first(results(full, keep()), full, tmp_path / "out")
    assert repr(entry) in str(error.value)
    assert not (tmp_path / "out").exists()


def test_sums_of_experts_are_refused(tmp_path):
    full, _ = write_pair("qwen3-fp8", tmp_path)
    layers = load(str(full), device="cpu").layers
    mask = merged_mask(layers, keep(), np.random.default_rng(0), "sliced", aligned=False)
    with pytest.raises(UnsupportedModel, match=r"fewer bits, which hold no exact sum of experts"):
        export_first(results(full, mask.keep, stand_in=mask.stand_in), full, tmp_path / "out")


UP = "model__layers__0__mlp__experts__3__up_proj__weight"


@pytest.mark.parametrize(
    ("kind", "changes", "error", "message"),
    [
        ("qwen3-fp8", {UP: None, f"{UP}_scale_inv": None}, ModelNotFound, "7 of 8 experts"),
        (
            "qwen3-fp8",
            {"model__layers__1__mlp__gate__weight_scale_inv": torch.ones(8, 1)},
            UnsupportedModel,
            r"gate\.weight is a router's and stored in fewer bits",
        ),
        (
            "gpt-oss-mxfp4",
            {"model__layers__1__mlp__experts__down_proj_scales": torch.ones(1, 64, 2).byte()},
            UnsupportedModel,
            r"down_proj_scales \[1, 64, 2\]: no dimension is clearly that of the 8 experts",
        ),
        (
            "qwen3-fp8",
            {"model__layers__0__mlp__scale": torch.ones(1)},
            UnsupportedModel,
            r"class has no tensor model\.layers\.0\.mlp\.scale",
        ),
    ],
)
def test_parts_whose_experts_cannot_be_told_are_refused(kind, changes, error, message, tmp_path):
    full, _ = write_pair(kind, tmp_path)
    with_tensors(full, **changes)
    with pytest.raises(error, match=message):
        export_first(results(full, keep()), full, tmp_path / "out")
    with pytest.raises(error, match=message):
        stored_size(full)


def test_the_layer_for_speculative_decoding_is_left_out_with_its_scales(tmp_path):
    full, _ = write_pair("deepseek-fp8", tmp_path)
    tensors = load_file(full / "model.safetensors")
    extra = {
        name.replace("layers.1.", "layers.61."): tensor.clone()
        for name, tensor in tensors.items()
        if ".layers.1." in name
    }
    assert any("experts.7.up_proj.weight_scale_inv" in name for name in extra)
    save_file(tensors | extra, full / "model.safetensors")
    with_settings(full, modules_to_not_convert=["model.layers.61.mlp.experts.3.up_proj"])
    layers = load(str(full), device="cpu").layers
    mask = random_keep(layers, 4)
    done = export_first(results(full, mask), full, tmp_path / "out")
    assert set(done.left_out) == set(extra)
    assert not any(".layers.61." in name for name in tensors_of(tmp_path / "out"))
    assert done.full.bytes == sum(tensor.nbytes for tensor in tensors.values())
    assert stored_size(full).bytes_left(mask) == done.pruned.bytes
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["quantization_config"]["modules_to_not_convert"] == []


def test_deepseek_moe_is_exported_in_its_original_form_only(tmp_path):
    tensors = random_tensors(CONFIG)
    for name in [name for name in tensors if re.search(r"(gate|up|down)_proj", name)]:
        parts, _ = fp8_blocks(tensors.pop(name).float())
        tensors |= {name.removesuffix("weight") + role: part for role, part in parts.items()}
    settings = FP8 | {"weight_block_size": [128, 128]}
    full = write(tmp_path, CONFIG | {"quantization_config": settings}, tensors)
    loaded = load(str(full), dtype="float32", device="cpu")
    mask = keep()
    with pytest.raises(UnsupportedModel, match="shared experts are doubled; export its original"):
        export_first(results(full, mask), full, tmp_path / "out")
    export_first(results(full, mask), full, tmp_path / "out", form="original")
    pruned = load(str(tmp_path / "out"), dtype="float32", device="cpu").model
    with torch.no_grad(), masked(loaded.layers, mask):
        assert torch.equal(pruned(IDS).logits, loaded.model(IDS).logits)


@torch.no_grad()
def test_an_expert_that_stays_plain_is_larger_and_keeps_being_named(tmp_path):
    full, twin = write_pair("qwen3-fp8", tmp_path)
    plain = load_file(twin / "model.safetensors")
    module = "model.layers.0.mlp.experts.5.up_proj"
    numbers = plain[f"{module}.weight"].to(torch.bfloat16)
    key = module.replace(".", "__") + "__weight"
    with_tensors(full, **{key: numbers, f"{key}_scale_inv": None})
    with_settings(full, modules_to_not_convert=[module])
    loaded = load(str(full), dtype="float32", device="cpu")
    export_first(results(full, keep()), full, tmp_path / "out")
    pruned = load(str(tmp_path / "out"), dtype="float32", device="cpu").model
    with masked(loaded.layers, keep()):
        assert torch.equal(pruned(IDS).logits, loaded.model(IDS).logits)
    after = tensors_of(tmp_path / "out")
    new = "model.layers.0.mlp.experts.2.up_proj"
    assert torch.equal(after[f"{new}.weight"], numbers)
    assert f"{new}.weight_scale_inv" not in after
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["quantization_config"]["modules_to_not_convert"] == [new]
    size = stored_size(full)
    assert size.bytes_left(keep()) == sum(tensor.nbytes for tensor in after.values())
    assert size.bytes_left(keep()) > size.bytes_left(~keep())
