"""A builder's stand-ins go through a whole run: evaluated, stored, written, merged, read again."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import mbench
from helpers.tiny_suite import SUITE, Watcher, plan_of, results_of
from mbench.core.errors import StoreError
from mbench.core.interfaces import ExpertMask
from mbench.core.stand_ins import Constants, Merged
from mbench.export.write import export
from mbench.moe.load import load
from mbench.moe.prune import prune
from mbench.report.across_runs.merge import merge
from mbench.run.runner import Runner
from mbench.storage.results_folder import read, write
from mbench.storage.results_json import STAND_INS
from mbench.storage.store import Store
from mbench_plugins.demo.plugin import MODEL

PLUGIN = """
import numpy as np
import mbench

class Replacing(mbench.MaskBuilder):
    layers = "any"
    class Params(mbench.Parameters):
        kind: str = "mapped"
    name = "replacing"
    def build(self, selection, scores, budget, candidate):
        rng = np.random.default_rng(0)
        keep = np.zeros((budget.num_layers, budget.num_experts), bool)
        for layer, row in enumerate(keep):
            row[rng.permutation(len(row))[: budget.kept + (-1) ** layer]] = True
        if self.params.kind == "constants":
            outputs = rng.normal(size=(*keep.shape, 96)).astype(np.float32) / 10
            return mbench.ExpertMask(keep, (), mbench.Constants(outputs * ~keep[..., None]))
        if self.params.kind == "wrong":
            return mbench.ExpertMask(keep, (), mbench.Constants(np.ones((2, 2, 2), np.float32)))
        into = np.where(keep, np.arange(keep.shape[1]), np.argmax(keep, axis=1)[:, None])
        weights = rng.uniform(size=keep.shape).astype(np.float32) / 8
        kind = self.params.kind
        neurons = "matched" if kind == "sliced" else None
        return mbench.ExpertMask(keep, (), mbench.Merged(into, weights, neurons, kind))

@mbench.hookimpl
def mbench_components():
    return [Replacing]
"""
KINDS = ("mapped", "sliced", "constants", "wrong")
METHODS = "".join(
    f"  {kind}: {{use: reap, builder: {{name: replacing, kind: {kind}}}, corpora: [wiki]}}\n"
    for kind in KINDS
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stand-ins")
    (folder / "replacing.py").write_text(PLUGIN)
    start, end = SUITE.index("  random:"), SUITE.index("perplexity:")
    text = SUITE[:start] + METHODS + SUITE[end:]
    text = text.replace("[0.25, 0.5]", "[0.5]")
    store = Store(folder / "store")
    plan = plan_of(folder, store, text, (folder / "replacing.py",))
    return folder, store, plan, Runner(plan, store, Watcher()).run(), text


def same(one, other):
    assert one.keys() == other.keys()
    for place, stand_in in one.items():
        assert type(other[place]) is type(stand_in)
        assert other[place].digest == stand_in.digest


def test_stand_ins_are_evaluated_and_come_back_from_store_and_results(finished, tmp_path):
    folder, store, plan, outcome, text = finished
    results = results_of(plan, outcome)
    by_method = {cell.method: cell for cell in results.cells}
    for kind, expected in zip(KINDS, (Merged, Merged, Constants), strict=False):
        cell = by_method[kind]
        mask = ExpertMask(
            results.masks["demo", cell.mask], (), results.stand_ins["demo", cell.mask]
        )
        assert isinstance(mask.stand_in, expected)
        assert mask.content_hash == cell.mask
    assert by_method["wrong"].status == "failed"
    assert by_method["wrong"].reason.startswith(
        "builder 'replacing': Constants.outputs must be float32 [4, 24, ?], not float32 [2, 2, 2]"
    )
    watcher = Watcher()
    again = plan_of(folder, store, text, (folder / "replacing.py",))
    restored = results_of(again, Runner(again, store, watcher).run())
    assert watcher.tokens == 0
    same(results.stand_ins, restored.stand_ins)
    write(results, tmp_path)
    same(results.stand_ins, read(tmp_path).stand_ins)
    same(results.stand_ins, merge({"a": results, "b": read(tmp_path)}).stand_ins)
    file = tmp_path / STAND_INS
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(StoreError, match=r"malformed: stand_ins\.safetensors is damaged"):
        read(tmp_path)
    file.unlink()
    assert read(tmp_path).stand_ins == {}


@pytest.mark.parametrize("kind", KINDS[:3])
def test_the_figures_are_those_of_a_changed_model_and_of_its_export(finished, kind, tmp_path):
    _, _, plan, outcome, _ = finished
    results = results_of(plan, outcome)
    (cell,) = (cell for cell in results.cells if cell.method == kind)
    keep = results.masks["demo", cell.mask]
    mask = ExpertMask(keep, (), results.stand_ins["demo", cell.mask])
    assert len(set(keep.sum(axis=1).tolist())) == 2
    loaded = load(str(MODEL), dtype="float32", device="cpu")
    changed = prune(loaded.model, loaded.layers, mask)
    (task, *_) = plan.tasks
    evaluator = task.prepare(loaded.facts.positions, loaded.tokenizer)
    with torch.no_grad():
        items = evaluator.evaluate(changed).items
    measured = cell.evaluations[task.name].items
    np.testing.assert_allclose(measured["nll"], items["nll"], rtol=1e-4)
    found = export(results, cell, MODEL, tmp_path / "out")
    assert found.kind == {"sliced": "uneven-merged"}.get(kind, kind)
    again = mbench.load_pruned(tmp_path / "out", dtype="float32", device="cpu")
    with torch.no_grad():
        exported = evaluator.evaluate(again.model).items
    # Sums are rounded to the precision in which the checkpoint is stored.
    np.testing.assert_allclose(measured["nll"], exported["nll"], rtol=1e-2)
    (full,) = (cell for cell in results.cells if cell.method == "none")
    assert not np.allclose(measured["nll"], full.evaluations[task.name].items["nll"], rtol=1e-3)
