"""`mbench identify`: a pruned checkpoint beside the full model and the masks in a store."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

import mbench
from helpers.command import call
from helpers.places import ROOT
from helpers.pruned_pairs import sliced_files
from helpers.tiny_suite import SUITE

DEMO = ROOT / "plugins" / "demo" / "model"
KEPT = [0, 1, 2, 5, 7, 8, 9, 12, 20, 21, 22, 23]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A store with two random masks of the demo, and the checkpoint of the first of them."""
    folder = tmp_path_factory.mktemp("identify")
    (folder / "tiny.yaml").write_text(SUITE)
    options = {"only": ["random"], "retain": [0.5], "limit": 1, "store": folder / "s"}
    run = mbench.run(folder / "tiny.yaml", output=folder / "reports", quiet=True, **options)
    cell = next(c for c in run.cells if c.method == "random" and c.seed == 0)
    keep = run.masks[cell.model, cell.mask]
    orders = [np.flatnonzero(row).tolist() for row in keep]
    sliced_files(DEMO, folder / "pruned", orders)
    return folder, keep, cell.mask


def changed(folder, name, change):
    tensors = load_file(folder / "pruned" / "model.safetensors")
    change(tensors)
    other = folder / name
    other.mkdir()
    for file in (folder / "pruned").iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    save_file(tensors, other / "model.safetensors", {"format": "pt"})
    return other


def test_a_mask_of_the_store_is_found_again(place, tmp_path):
    folder, keep, mask = place
    words = ("identify", "demo", str(folder / "pruned"), "--save", str(tmp_path / "mask.json"))
    done = call(*words, cwd=tmp_path, store=folder / "s")
    assert (done.returncode, done.stderr) == (0, "")
    assert "experts kept: 12 of 24 in each layer (0.5), in 4 layers\n" in done.stdout
    assert f"mask: {mask[:12]}\n" in done.stdout
    assert "differs in: nothing else" in done.stdout
    assert "agrees with: demo 50 % pruned, random seed 0: the same mask" in done.stdout
    assert "seed 1" not in done.stdout
    saved = json.loads((tmp_path / "mask.json").read_text())
    assert saved["content_hash"] == mask
    assert list(saved["kept"].values()) == [np.flatnonzero(row).tolist() for row in keep]


def test_what_differs_and_the_nearest_masks_are_said(place, tmp_path):
    folder, keep, _ = place

    def change(tensors):
        tensors["model.embed_tokens.weight"] *= 2

    other = changed(folder, "other", change)
    done = call("identify", str(DEMO), str(other), "--json", cwd=tmp_path, store=folder / "s")
    found = json.loads(done.stdout)
    assert (done.returncode, found["is_mask"], found["problems"]) == (0, False, [])
    assert found["differs"] == ["1 tensor, e.g. model.embed_tokens.weight"]
    assert list(found["kept"].values()) == [np.flatnonzero(row).tolist() for row in keep]
    same, nearest = found["known_masks"]
    assert (same["is_same"], same["common"], same["chance"]) == (True, 1.0, 0.5)
    # 4 layers of 12 drawn from 24, of which 12 count: the hypergeometric variance, four times.
    assert nearest["deviation"] == pytest.approx(np.sqrt(4 * 12**4 / 24**2 / 23) / 48)
    assert abs(nearest["common"] - 0.5) < 4 * nearest["deviation"]
    assert mbench.identify("demo", other, store=folder / "s").to_json() == found | {
        "base": str(DEMO)
    }


def test_what_is_no_selection_has_no_mask(place, tmp_path):
    folder, *_ = place

    def change(tensors):
        name = next(n for n in tensors if ".experts.3." in n)
        for each in [n for n in tensors if n.startswith(name.partition(".experts.")[0])]:
            if ".experts.3." in each:
                tensors[each] = (tensors[each] + tensors[each.replace("ts.3.", "ts.4.")]) / 2

    other = changed(folder, "merged", change)
    words = ("identify", "demo", str(other), "--save", "mask.json")
    done = call(*words, cwd=tmp_path, store=folder / "s")
    assert done.returncode == 3
    assert "not a selection of the full model's 24 in 4 layers" in done.stdout
    assert "expert 3 is a merger: 0.50 x" in done.stdout
    assert done.stderr == "mask.json is not written: there is no mask to save\n"
    assert not (tmp_path / "mask.json").exists()


def test_both_may_be_on_the_hub_at_a_revision(place, online, tmp_path, monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE")  # which counts again after a call
    folder, keep, _ = place
    online.push("model", "acme/full", DEMO)
    first = online.push("model", "acme/small", folder / "pruned")
    online.push("model", "acme/small", DEMO)
    found = mbench.identify("acme/full", f"acme/small@{first}", store=tmp_path / "s")
    np.testing.assert_array_equal(found.mask.keep, keep)
    assert found.pruned == f"acme/small@{first}"
    assert found.known == ()
    assert mbench.identify("acme/full", "acme/small", store=tmp_path / "s").mask.keep.all()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("demo", "./nowhere"), "error: model ./nowhere: no such directory\n"),
        (("demo", "."), "error: model .: config.json is missing\n"),
        (
            ("dmo", "pruned"),
            "error: model dmo: the Hugging Face hub is not asked, as HF_HUB_OFFLINE says, and"
            " nothing of it is in the local cache; nor is there such a directory, or a plugin's"
            " model (demo, demo-fp8); did you mean 'demo'?\n",
        ),
        (("demo",), "error: Missing argument 'PRUNED'.\n"),
    ],
)
def test_a_mistake_is_one_line(words, message, tmp_path):
    done = call("identify", *words, cwd=tmp_path, store=tmp_path / "s")
    assert (done.returncode, done.stderr) == (2, message)
