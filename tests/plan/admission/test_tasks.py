"""Tasks are looked at before weights are loaded: a line at the suite's line, and never twice."""

from __future__ import annotations

import json

import pytest

from helpers.tiny_suite import SUITE, plan_of
from mbench.core.errors import AdmissionError
from mbench.evaluate.lm_eval import prepared_task
from mbench.plan.admission.admit import admit, refuse
from mbench.plan.cost import stored_size
from mbench.plan.suite_file import load_suite
from mbench.plan.tasks import TaskSize
from mbench.storage.store import Store

TASK = """\
task: sums
dataset_path: json
dataset_kwargs: {data_files: {test: sums.jsonl}}
output_type: generate_until
test_split: test
doc_to_text: "{{q}} ="
doc_to_target: "{{a}}"
generation_kwargs: {until: ["\\n"], max_gen_toks: 4}
filter_list:
  - {name: strict, filter: [{function: take_first}]}
  - {name: loose, filter: [{function: remove_whitespace}, {function: take_first}]}
metric_list: [{metric: exact_match}]
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "sums.yaml").write_text(TASK)
    items = [{"q": f"{at} + {at}", "a": f"{2 * at}"} for at in range(5)]
    (tmp_path / "tasks" / "sums.jsonl").write_text("\n".join(map(json.dumps, items)))
    return tmp_path


def suite(folder, more=""):
    return f"{SUITE}  sums: {{directory: {folder}/tasks{more}}}\n"


def test_the_default_metric_of_a_generating_task_is_refused_at_its_line(folder):
    store = Store(folder / "store")
    plan = plan_of(folder, store, suite(folder))
    _, source = load_suite(folder / "suite.yaml")
    with pytest.raises(AdmissionError) as caught:
        refuse(admit(plan, store), source)
    (line,) = str(caught.value).splitlines()
    at = SUITE.count("\n") + 1
    assert line.startswith(f"{folder}/suite.yaml:{at}:")
    assert "tasks.sums: metric: unknown metric 'acc'" in line
    assert "(valid: exact_match,loose, exact_match,strict)" in line


def test_what_is_fine_is_told_once_and_remembered(folder, monkeypatch):
    store = Store(folder / "store")
    text = suite(folder, ', metric: "exact_match,strict", limit: 9')
    findings = admit(plan_of(folder, store, text), store)
    of_task = {(f.fact, f.model): (f.words, f.level) for f in findings if f.name == "sums"}
    assert of_task["items", None] == ("limit is 9, but sums has 5", "note")
    assert of_task["answer", None] == ("up to 4 tokens", "fine")
    assert of_task["prompts", "demo"][0].startswith("5 of up to")

    def build(*_):
        raise AssertionError("a task was built again")

    monkeypatch.setattr(prepared_task, "build", build)
    assert admit(plan_of(folder, store, text), store) == findings
    with (folder / "tasks" / "sums.jsonl").open("a") as stream:
        stream.write('\n{"q": "1 + 1", "a": "2"}')
    with pytest.raises(AssertionError, match="built again"):
        admit(plan_of(folder, store, text), store)


def test_what_was_counted_is_kept_for_plans(folder):
    """Of texts, of choices and of answers, as a run would count them; again where it was lost."""
    store = Store(folder / "store")
    text = suite(folder, ', metric: "exact_match,strict", limit: 4').replace(", max_windows: 4", "")
    plan = plan_of(folder, store, text)
    (model,) = plan.models
    assert {stored_size(plan, store, model, task) for task in plan.tasks} == {None}
    for _ in range(2):
        findings = admit(plan, store)
        for task in plan.tasks:
            built = task.prepare(model.facts.positions, model.tokenizer)
            assert stored_size(plan, store, model, task) == TaskSize(
                built.items, built.tokens, built.generated
            )
        store.forget(plan.task_size_key(model, plan.tasks[-1]))
    assert admit(plan, store) == findings
