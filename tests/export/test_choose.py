"""One pruned model of a run is meant, and exactly the full model that was evaluated."""

from __future__ import annotations

import shutil

import pytest
from huggingface_hub import constants

from helpers.exported import export_first, results
from helpers.prunable import built, draw
from helpers.tiny_models import save
from mbench.core.errors import MbenchError, ModelNotFound, UnsupportedModel
from mbench.core.provenance import ModelSource
from mbench.export.choose import choose, find_checkpoint
from mbench_plugins.demo.plugin import MODEL


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """(folder of a full model, a mask of it)."""
    model, layers = built("olmoe")
    return save(model, tmp_path_factory.mktemp("full") / "olmoe"), draw(layers, 4, seed=3)


def test_the_choice_is_told_where_it_is_not_clear(checkpoint):
    full, keep = checkpoint
    found = results(full, keep)
    assert choose(found, seed=1, method="a", retain=0.5, model="tiny") is found.cells[2]
    for wanted, message in [
        ({}, r"choose one seed with --seed \(valid: 0, 1\)"),
        ({"seed": 5}, r"unknown seed '5' \(valid: 0, 1\)"),
        ({"retain": 0.25}, r"unknown retain '0.25'.* \(valid: 0.5\)"),
        ({"method": "none"}, r"unknown method 'none' \(valid: a\)"),
    ]:
        with pytest.raises(MbenchError, match=message):
            choose(found, **wanted)


def test_only_the_model_that_was_evaluated_is_taken(checkpoint):
    full, keep = checkpoint
    found = results(full, keep)
    assert find_checkpoint(found, "tiny", None, {}) == full
    with pytest.raises(ModelNotFound, match="is not the model 'tiny' of the results"):
        find_checkpoint(found, "tiny", str(MODEL), {})
    plugin = results(full, keep, source=ModelSource("plugin", "p"))
    assert find_checkpoint(plugin, "tiny", None, {"p": full}) == full
    with pytest.raises(ModelNotFound, match="unknown plugin model 'p'"):
        find_checkpoint(plugin, "tiny", None, {})
    with pytest.raises(
        ModelNotFound,
        match="by the hash of its files, which cannot be",
    ):
        find_checkpoint(found, "tiny", "org/tiny", {})
    by_commit = results(full, keep, content="commit:0123456789")
    with pytest.raises(ModelNotFound, match="by its commit 0123456789, which cannot be"):
        find_checkpoint(by_commit, "tiny", str(full), {})
    trusted = results(full, keep, content="commit:0:remote-code", trust_remote_code=True)
    with pytest.raises(UnsupportedModel, match=r"own code \(trust_remote_code\): an export does"):
        find_checkpoint(trusted, "tiny", None, {})


def test_a_hub_model_is_taken_at_its_commit(checkpoint, tmp_path, monkeypatch):
    full, keep = checkpoint
    commit = "0123456789abcdef0123456789abcdef01234567"
    snapshot = tmp_path / "models--org--tiny" / "snapshots" / commit
    shutil.copytree(full, snapshot)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    found = results(full, keep, content=f"commit:{commit}", source=ModelSource("hub", "org/tiny"))
    assert find_checkpoint(found, "tiny", None, {}) == snapshot
    done = export_first(found, snapshot, tmp_path / "out")
    assert "base_model: org/tiny" in (done.directory / "README.md").read_text()
    with pytest.raises(ModelNotFound, match="not in the local cache"):
        find_checkpoint(found, "tiny", "org/other", {})
