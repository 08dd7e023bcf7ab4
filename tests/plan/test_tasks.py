"""Planned tasks: what enters their fingerprints, and what a suite expects of them."""

from __future__ import annotations

import pytest

from mbench.plan.computing_code import installed_code
from mbench.plan.plugin_loading import load_registry
from mbench.plan.suite_file import load_suite
from mbench.plan.tasks import TaskSize, plan_tasks
from mbench.storage.inputs import Inputs

SUITE = """\
name: tiny
models: {demo: {plugin: demo}}
retain: [0.5]
methods: {random: {}}
perplexity:
  text: {source: {files: [TEXT]}, window: 64, stride: 32, expect_tokens: 500}
tasks:
  cloze: {task: cloze_wiki, expect: {items: 7, tokens: 70}}
"""


@pytest.fixture(scope="module")
def registry():
    return load_registry()


@pytest.fixture
def planned(tmp_path, registry, store):
    """The text and the task of the suite with other settings."""
    (tmp_path / "text.txt").write_text("some words")
    (tmp_path / "other.txt").write_text("other words")
    path = tmp_path / "suite.yaml"
    path.write_text(SUITE.replace("TEXT", str(tmp_path / "text.txt")))

    def plan(*set_values):
        suite, source = load_suite(path, set_values=set_values)
        return plan_tasks(suite, source, registry, installed_code(), Inputs(store))

    return plan


@pytest.mark.parametrize(
    "setting",
    [
        "perplexity.text={source: {files: [FOLDER/text.txt]}, protocol: gptq, window: 64}",
        "perplexity.text.window=65",
        "perplexity.text.stride=31",
        "perplexity.text.join=' '",
        "perplexity.text.max_windows=3",
        "perplexity.text.source.files=[FOLDER/other.txt]",
        "tasks.cloze.task=cloze_bible",
        "tasks.cloze.limit=5",
        "tasks.cloze.num_fewshot=0",
        "tasks.cloze.max_gen_toks=5",
    ],
)
def test_whatever_decides_a_figure_changes_the_fingerprint(setting, planned, tmp_path):
    before, after = planned(), planned(setting.replace("FOLDER", str(tmp_path)))
    both = zip(before, after, strict=True)
    changed = [old.name for old, new in both if old.fingerprint != new.fingerprint]
    assert changed == [setting.split(".")[1].split("=")[0]]


def test_whatever_decides_no_figure_does_not(planned, tmp_path):
    (tmp_path / "copy.txt").write_text("some words")
    others = (
        "perplexity.text.expect_tokens=1",
        f"perplexity.text.source.files=[{tmp_path}/copy.txt]",
        "tasks.cloze.metric=acc_norm",
        "tasks.cloze.expect=null",
        f"tasks.cloze.directory={tmp_path}",
    )
    same = [task.fingerprint for task in planned()]
    assert [task.fingerprint for task in planned(*others)] == same


def test_an_omitted_name_is_the_name_of_the_suite(planned):
    _, named, omitted = planned("tasks.cloze_wiki={}")
    assert named.fingerprint == omitted.fingerprint
    assert named.directories == omitted.directories != ()


def test_expectations_follow_from_the_suite(planned):
    text, task = planned("tasks.cloze.metric=acc_norm")
    assert (text.metric, text.expected_items, text.expected_size.tokens) == (
        "perplexity",
        None,
        500,
    )
    assert (task.metric, task.expected_items, task.expected_size) == (
        "acc_norm",
        7,
        TaskSize(7, 70, 0),
    )
    # Three windows of 63 predictions; of a limited group, nobody knows how many items are left.
    text, task = planned("perplexity.text.max_windows=3", "tasks.cloze.limit=5")
    assert text.expected_size.tokens == 189
    assert (task.expected_items, task.expected_size) == (None, None)
