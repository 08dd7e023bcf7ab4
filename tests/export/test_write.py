"""An exported checkpoint needs no mbench and computes what the masked model does."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

from helpers.deepseek_moe import CONFIG, random_tensors, write
from helpers.exported import export_first, results, tensors_of
from helpers.held import LONG
from helpers.prunable import IDS, PRUNABLE, built, draw
from helpers.tiny_models import save
from mbench.core.errors import MbenchError, ModelNotFound, StoreError, UnsupportedModel
from mbench.core.interfaces import ExpertMask
from mbench.moe.load import load
from mbench.moe.mask import masked
from mbench.storage.checkpoints import Directory, model_key
from mbench.storage.mask_json import MASK_FILE
from mbench_plugins.demo.plugin import MODEL

STOCK = """
import sys
import torch, transformers
for folder in sys.argv[2:]:
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    torch.save(tokenizer("two  words").input_ids, folder + "/words.pt")
    with torch.no_grad():
        torch.save(model(torch.load(sys.argv[1])).logits, folder + "/logits.pt")
assert "mbench" not in sys.modules
"""
FAMILIES = (*PRUNABLE, "demo", "deepseek")
KEPT = {"mixtral": 2, "deepseek_v3": 4, "demo": 6, "deepseek": 2}
"""Of 8 experts, or 24 of the demo; fewer than a token gets in Mixtral."""


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """family -> (full checkpoint, mask, exported folder with the logits that stock code gave)."""
    root = tmp_path_factory.mktemp("exported")
    torch.save(IDS, root / "ids.pt")
    made = {}
    for family in FAMILIES:
        if family == "deepseek":
            full = write(root / "full-deepseek", CONFIG, random_tensors(CONFIG))
            (full / "modeling_deepseek.py").touch()
            keep = np.zeros((2, 8), dtype=bool)
            keep[0, [1, 6]] = keep[1, [0, 5]] = True
        elif family == "demo":
            full = MODEL
            keep = np.zeros((4, 24), dtype=bool)
            keep[:, 3::4] = True
        else:
            model, layers = built(family)
            # Several files, as large checkpoints have them.
            full = save(model, root / f"full-{family}")
            (full / "model.safetensors").unlink()
            model.save_pretrained(full, max_shard_size="60KB")
            keep = draw(layers, KEPT.get(family, 4), seed=3)
        export_first(results(full, keep), full, root / family)
        made[family] = full, keep, root / family
    folders = [str(folder) for _, _, folder in made.values()]
    command = [sys.executable, "-I", "-c", STOCK, str(root / "ids.pt"), *folders]
    run = subprocess.run(command, capture_output=True, text=True, timeout=LONG)
    assert run.returncode == 0, run.stderr
    return made


@pytest.mark.parametrize("family", FAMILIES)
def test_stock_transformers_gives_the_masked_models_logits(exported, family):
    full, keep, folder = exported[family]
    loaded = load(str(full), device="cpu")
    with masked(loaded.layers, keep), torch.no_grad():
        expected = loaded.model(IDS).logits
    found = torch.load(folder / "logits.pt")
    tolerance = {"rtol": 0.02, "atol": 0.02} if found.dtype == torch.bfloat16 else {}
    torch.testing.assert_close(found, expected, **tolerance)
    with torch.no_grad():
        assert not torch.allclose(found, loaded.model(IDS).logits, **tolerance)


def test_deepseek_moe_is_written_as_the_qwen2_moe_that_it_is(exported):
    full, _, folder = exported["deepseek"]
    config = json.loads((folder / "config.json").read_text())
    assert (config["model_type"], config["architectures"]) == ("qwen2_moe", ["Qwen2MoeForCausalLM"])
    assert not (folder / "modeling_deepseek.py").exists()
    # The begin-of-sequence token comes with stock code too, as it did when figures were measured.
    tokenizer = load(str(full), device="cpu").tokenizer
    assert torch.load(folder / "words.pt") == tokenizer("two  words").input_ids
    assert tokenizer("two  words").input_ids[0] == CONFIG["bos_token_id"]
    card = (folder / "README.md").read_text()
    assert "Written as `qwen2_moe`, because transformers has no class for `deepseek`" in card
    assert "bit for bit, except the shared experts" in card
    assert "library_name: transformers" in card


@pytest.mark.parametrize(
    ("family", "expert", "router"),
    [
        ("qwen2_moe", "model.layers.1.mlp.experts.{}.gate_proj.weight", "model.layers.1.mlp.gate"),
        (
            "mixtral",
            "model.layers.1.block_sparse_moe.experts.{}.w2.weight",
            "model.layers.1.block_sparse_moe.gate",
        ),
        ("glm4_moe", "model.layers.2.mlp.experts.{}.up_proj.weight", "model.layers.2.mlp.gate"),
    ],
)
def test_names_are_the_familys_own_and_no_bit_changes(exported, family, expert, router):
    full, keep, folder = exported[family]
    before, after = tensors_of(full), tensors_of(folder)
    kept = np.flatnonzero(keep[1]).tolist()
    assert set(after) < set(before)
    assert expert.format(len(kept)) not in after
    for new, old in enumerate(kept):
        assert torch.equal(after[expert.format(new)], before[expert.format(old)])
    for name in (f"{router}.weight", f"{router}.e_score_correction_bias"):
        assert (name in after) == (name in before)
        if name in after:
            assert torch.equal(after[name], before[name][kept])
    for name in set(after):
        if ".experts." not in name and ".gate." not in name:
            assert torch.equal(after[name], before[name])


def test_the_folder_says_what_it_is(exported):
    full, keep, folder = exported["mixtral"]
    config = json.loads((folder / "config.json").read_text())
    whole = json.loads((full / "config.json").read_text())
    assert config == whole | {"num_local_experts": 2, "num_experts_per_tok": 2}
    mask = json.loads((folder / MASK_FILE).read_text())
    path = "model.layers.1.mlp.experts"
    assert mask["kept"][path] == np.flatnonzero(keep[1]).tolist()
    assert (mask["num_experts"], mask["experts_kept"], mask["method"]) == (8, 2, "a")
    assert mask["content_hash"] == ExpertMask(keep).content_hash
    assert mask["model"] == {"name": "tiny", "content": model_key(Directory(full))}
    card = (folder / "README.md").read_text()
    assert "| experts per token | 3 | 2 |" in card
    assert "A token gets 2 experts instead of the full model's 3" in card
    assert "| quiz | acc | 0.500 ± 0.500 | 0.500 ± 0.500 |" in card
    assert str(full) not in card + json.dumps(mask)
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        assert (folder / name).read_bytes() == (full / name).read_bytes()


def test_what_cannot_be_exported_leaves_nothing_behind(exported, tmp_path):
    full, keep, folder = exported["olmoe"]
    out = tmp_path / "out"
    with pytest.raises(MbenchError, match="exists already"):
        export_first(results(full, keep), full, folder)
    with pytest.raises(UnsupportedModel, match="only results with `router: sliced`"):
        export_first(results(full, keep, router="preserved"), full, out)
    pickled = shutil.copytree(full, tmp_path / "pickled")
    for path in pickled.glob("model*"):
        path.unlink()
    (pickled / "pytorch_model.bin").touch()
    with pytest.raises(UnsupportedModel, match="no safetensors"):
        export_first(results(pickled, keep), pickled, out)
    damaged = shutil.copytree(full, tmp_path / "damaged")
    part = min(damaged.glob("*.safetensors"))
    part.write_bytes(part.read_bytes()[:-1])
    with pytest.raises(ModelNotFound, match="truncated"):
        export_first(results(damaged, keep), damaged, out)

    found = results(full, keep)
    found.masks.clear()
    with pytest.raises(MbenchError, match=r"results lack the mask .* of tiny"):
        export_first(found, full, out)

    # As on a full disk: the system refuses to write on.
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(StoreError, match="File too large"):
            export_first(results(full, keep), full, out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["damaged", "pickled"]


def test_an_empty_text_config_is_none(exported, tmp_path):
    full, keep, _ = exported["olmoe"]
    copy = shutil.copytree(full, tmp_path / "full")
    config = json.loads((copy / "config.json").read_text()) | {"text_config": None}
    (copy / "config.json").write_text(json.dumps(config))
    export_first(results(copy, keep), copy, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["num_experts"] == 4
