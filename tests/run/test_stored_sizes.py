"""Cells tell what their checkpoints take in files, also where nothing is at hand any more."""

from __future__ import annotations

import shutil

from helpers.exported import tensors_of
from helpers.tiny_suite import Watcher, plan_of, results_of
from mbench.core.errors import UnsupportedModel
from mbench.export.choose import choose
from mbench.export.write import export
from mbench.run.runner import Runner
from mbench_plugins.demo.plugin import MODEL, MODEL_IN_FP8

SUITE = """\
name: tiny
models:
  full: {path: FULL, dtype: float32}
  fp8: {path: FP8, dtype: float32, same_as: full}
retain: [0.5]
methods: {random: {seeds: 1}}
perplexity:
  ppl-wiki:
    {source: {plugin: wiki, split: evaluation}, window: 32, stride: 16, max_windows: 1}
"""


def run(plan, store):
    watcher = Watcher()
    outcome = Runner(plan, store, watcher).run()
    return results_of(plan, outcome), watcher.warnings


def test_bytes_are_those_of_the_exported_checkpoint(tmp_path, store, monkeypatch):
    text = SUITE.replace("FULL", str(MODEL)).replace("FP8", str(MODEL_IN_FP8))
    results, warnings = run(plan_of(tmp_path, store, text), store)
    assert not warnings
    for model, folder in (("full", MODEL), ("fp8", MODEL_IN_FP8)):
        unpruned, pruned = (cell for cell in results.cells if cell.model == model)
        assert unpruned.weight_bytes == sum(t.nbytes for t in tensors_of(folder).values())
        out = tmp_path / model
        export(results, choose(results, model=model, method="random"), folder, out)
        assert pruned.weight_bytes == sum(t.nbytes for t in tensors_of(out).values())

    def refuse(folder):
        raise UnsupportedModel("not to be read again")

    monkeypatch.setattr("mbench.moe.stored_size.stored_size", refuse)
    again, warnings = run(plan_of(tmp_path, store, text), store)
    assert not warnings
    sizes = [[cell.weight_bytes for cell in found.cells] for found in (results, again)]
    assert sizes[0] == sizes[1]


def test_a_size_that_cannot_be_told_is_said_and_left_out(tmp_path, store, monkeypatch):
    def refuse(folder):
        raise UnsupportedModel("its weights are no safetensors files")

    monkeypatch.setattr("mbench.moe.stored_size.stored_size", refuse)
    full = shutil.copytree(MODEL, tmp_path / "full")
    text = "\n".join(line for line in SUITE.splitlines() if "fp8" not in line)
    results, warnings = run(plan_of(tmp_path, store, text.replace("FULL", str(full))), store)
    assert warnings == [
        "full: its bytes as stored are not known: its weights are no safetensors files"
    ]
    assert [cell.weight_bytes for cell in results.cells] == [None, None]
