"""A generating task through a whole run: its limit, its options, and how its answers look."""

from __future__ import annotations

import json

import pandas as pd
import pytest
import torch

from helpers.tiny_suite import Watcher, go, plan_of, results_of
from mbench.core.evaluation import GENERATED_METRICS
from mbench.evaluate import decoding
from mbench.plan.admission.admit import admit
from mbench.plan.in_words import answers_in_words, protocol_in_words
from mbench.storage.results_folder import read, write
from mbench.storage.store import Store

TASK = """
task: told
dataset_path: json
dataset_kwargs: {data_files: {test: told.jsonl}}
output_type: generate_until
test_split: test
doc_to_text: "{{q}}"
doc_to_target: "{{a}}"
generation_kwargs: {until: ["."], do_sample: false}
metric_list: [{metric: exact_match}]
"""
ITEMS = [
    {"q": "In the beginning God created the", "a": " heaven"},
    {"q": "And the children of", "a": " Israel"},
    {"q": "Thus saith the", "a": " LORD"},
    {"q": "And it came to", "a": " pass"},
]


@pytest.fixture
def suite(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "told.yaml").write_text(TASK)
    (tmp_path / "told.jsonl").write_text("\n".join(map(json.dumps, ITEMS)))
    text = """\
        name: told
        models: {demo: {plugin: demo, dtype: float32}}
        retain: [0.25]
        corpora: {wiki: {source: {plugin: wiki, split: calibration}, sequences: 4, length: 32}}
        calibration: [wiki]
        resamples: 0
        methods: {reap: }
        tasks: {told: {directory: ., metric: exact_match%s}}
        average: {tasks: [told]}
    """.replace("\n        ", "\n").strip()
    return lambda more="": text % more


def test_answers_are_told_beside_accuracy_and_stored(suite, tmp_path, store):
    plan = plan_of(tmp_path, store, suite(", max_gen_toks: 40"))
    first, table = go(plan, store)
    own = table[table["task"] == "told"].pivot(index="method", columns="metric", values="value")
    assert set(own.columns) == {"exact_match", *GENERATED_METRICS}
    results = results_of(plan, first)
    write(results, tmp_path / "out")
    items = pd.read_parquet(tmp_path / "out" / "items.parquet")
    for cell in read(tmp_path / "out").cells:
        rows = items[items["mask"] == cell.mask]
        for metric in GENERATED_METRICS:
            assert cell.value("told", metric) == pytest.approx(rows[metric].mean())
        assert rows["answer_tokens"].between(1, 40).all()
        # Whatever the limit ended has all its tokens, and no text that ends answers.
        assert (rows.loc[rows["hit_limit"] == 1, "answer_tokens"] == 40).all()
    second, again = go(plan_of(tmp_path, store, suite(", max_gen_toks: 40")), store)
    assert second.forward_tokens == 0
    pd.testing.assert_frame_equal(table, again)
    drawn = ", max_gen_toks: 40, generation: {do_sample: true, temperature: 1.5}"
    third, other = go(plan_of(tmp_path, store, suite(drawn)), store)
    assert third.forward_tokens > 0
    assert not other["value"].equals(table["value"])
    said = {
        e.name: e.text for e in protocol_in_words(plan_of(tmp_path, store, suite(drawn)).suite, {})
    }
    assert "up to 40 tokens, do_sample True, temperature 1.5" in said["Task told"]


def test_a_limit_that_nobody_set_is_told_before_the_run_and_in_the_protocol(suite, tmp_path, store):
    found = admit(plan_of(tmp_path, store, suite()), store)
    (entry,) = answers_in_words(found)
    assert entry.name == "Answers of told"
    assert entry.text.startswith("up to 256 tokens (lm-eval's default: the task names none;")
    # The embedded model has no more positions than that.
    assert any("leaves no room for a prompt" in each.words for each in found)
    assert not list(
        answers_in_words(admit(plan_of(tmp_path, store, suite(", max_gen_toks: 40")), store))
    )


def test_how_many_answers_memory_had_room_for_is_in_the_record(suite, tmp_path, store, monkeypatch):
    plan = plan_of(tmp_path, store, suite(", max_gen_toks: 12"))
    step = decoding.one_more

    def cramped(model, cache, last, *others):
        if len(last) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return step(model, cache, last, *others)

    monkeypatch.setattr(decoding, "one_more", cramped)
    watcher = Watcher()
    outcome, table = go(plan, store, watcher)
    cost = results_of(plan, outcome).provenance.runs[0].cost
    assert cost.answers_at_once == {"demo": {"told": 2}}
    assert sum("out of memory" in text for text in watcher.warnings) == 1
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    roomy = Store(tmp_path / "roomy")
    second, expected = go(plan_of(tmp_path, roomy, suite(", max_gen_toks: 12")), roomy)
    assert not results_of(plan, second).provenance.runs[0].cost.answers_at_once
    pd.testing.assert_frame_equal(table, expected)
