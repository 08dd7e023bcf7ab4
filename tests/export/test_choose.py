"""One pruned model of a run is meant, and exactly the full model that was evaluated."""

from __future__ import annotations

import pytest

from helpers.exported import export_first, results
from helpers.prunable import built, draw
from helpers.tiny_models import save
from mbench.core.errors import MbenchError, ModelNotFound, UnsupportedModel
from mbench.core.provenance import ModelSource
from mbench.export.choose import choose, find_checkpoint
from mbench.storage.inputs import Inputs
from mbench_plugins.demo.plugin import MODEL


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """(folder of a full model, a mask of it)."""
    model, layers = built("olmoe")
    return save(model, tmp_path_factory.mktemp("full") / "olmoe"), draw(layers, 4, seed=3)


@pytest.fixture
def inputs(store):
    return Inputs(store)


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


def test_only_the_model_that_was_evaluated_is_taken(checkpoint, inputs):
    full, keep = checkpoint
    found = results(full, keep)
    assert find_checkpoint(found, "tiny", None, {}, inputs) == full
    with pytest.raises(ModelNotFound, match="is not the model 'tiny' of the results"):
        find_checkpoint(found, "tiny", str(MODEL), {}, inputs)
    plugin = results(full, keep, source=ModelSource("plugin", "p"))
    assert find_checkpoint(plugin, "tiny", None, {"p": full}, inputs) == full
    with pytest.raises(ModelNotFound, match="unknown plugin model 'p'"):
        find_checkpoint(plugin, "tiny", None, {}, inputs)
    trusted = results(full, keep, content="commit:0:remote-code", trust_remote_code=True)
    with pytest.raises(UnsupportedModel, match=r"own code \(trust_remote_code\): an export does"):
        find_checkpoint(trusted, "tiny", None, {}, inputs)


def test_a_hub_model_is_taken_at_its_commit(checkpoint, inputs, online, tmp_path):
    full, keep = checkpoint
    commit = online.push("model", "org/tiny", full)
    online.push("model", "org/tiny", {"config.json": b"{}"})
    found = results(full, keep, revision=commit, source=ModelSource("hub", "org/tiny"))
    source = find_checkpoint(found, "tiny", None, {}, inputs)
    done = export_first(found, source, tmp_path / "out")
    assert "base_model: org/tiny" in (done.directory / "README.md").read_text()
    with pytest.raises(ModelNotFound, match="has no such public repository"):
        find_checkpoint(found, "tiny", "org/other", {}, inputs)
