"""The tasks within groups and tags, compared with those that lm-eval builds."""

from __future__ import annotations

import pytest
from lm_eval.tasks import TaskManager

from mbench.core.errors import TaskError
from mbench.evaluate.lm_eval.leaves import leaves

TASK = """\
include: _shared
task: {name}
tag: {tag}
dataset_kwargs: {{data_files: {{test: {folder}/{name}.jsonl}}}}
"""
SHARED = """\
dataset_path: json
output_type: multiple_choice
test_split: test
doc_to_text: "{{question}}"
doc_to_choice: [a, b]
doc_to_target: 0
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""
GROUPS = {
    "outer": "group: outer\nnum_fewshot: 0\nrepeats: 2\ntask: [one, inner, both]\n",
    "inner": """\
group: inner
description: of the inner one
task:
  - {task: two, num_fewshot: 1, description: of the member}
  - {task: one, dataset_kwargs: {data_files: {test: FOLDER/two.jsonl}}}
  - group: written-out
    task: [two]
""",
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "_shared").write_text(SHARED)
    for name, tag in (("one", "both"), ("two", "[both, other]")):
        (tmp_path / f"{name}.yaml").write_text(TASK.format(name=name, tag=tag, folder=tmp_path))
        (tmp_path / f"{name}.jsonl").write_text(f'{{"question": "{name}?"}}\n')
    for name, text in GROUPS.items():
        (tmp_path / f"{name}.yaml").write_text(text.replace("FOLDER", str(tmp_path)))
    return tmp_path


@pytest.mark.parametrize("name", ["one", "both", "other", "inner", "outer"])
def test_leaves_are_the_tasks_that_lm_eval_builds(folder, name, monkeypatch):
    built = []
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    build = type(manager._factory)._build_task

    def recording(factory, entry, overrides):
        task = build(factory, entry, overrides)
        built.append(task.config)
        return task

    monkeypatch.setattr(type(manager._factory), "_build_task", recording)
    manager.load(name)
    fields = ("task", "dataset_path", "dataset_kwargs", "num_fewshot", "repeats", "description")
    defaults = {"repeats": 1, "description": ""}
    ours = [
        [leaf.config.get(f, defaults.get(f)) for f in fields] for leaf in leaves(name, [folder])
    ]
    assert ours == [[getattr(config, f) for f in fields] for config in built]
    assert len(ours) == {"one": 1, "both": 2, "other": 1, "inner": 3, "outer": 6}[name]


def test_a_local_task_takes_the_place_of_one_in_a_group_of_lm_evals_own(folder):
    before = {leaf.name: leaf.config["dataset_path"] for leaf in leaves("ai2_arc", [])}
    assert before == {"arc_challenge": "allenai/ai2_arc", "arc_easy": "allenai/ai2_arc"}
    (folder / "arc.yaml").write_text("include: _shared\ntask: arc_easy\n")
    after = {leaf.name: leaf.config["dataset_path"] for leaf in leaves("ai2_arc", [folder])}
    assert after == {"arc_challenge": "allenai/ai2_arc", "arc_easy": "json"}


def test_groups_of_tags_of_lm_evals_own(folder):
    mmlu = leaves("mmlu", [])
    assert len({leaf.config["dataset_name"] for leaf in mmlu}) == len(mmlu) == 57
    assert {leaf.config["dataset_path"] for leaf in mmlu} == {"cais/mmlu"}


def test_a_group_that_contains_itself_is_refused(folder):
    (folder / "outer.yaml").write_text("group: outer\ntask: [inner]\n")
    (folder / "inner.yaml").write_text("group: inner\ntask: [outer]\n")
    with pytest.raises(TaskError, match="the group 'outer' contains itself"):
        leaves("outer", [folder])
