"""What a task loads is known before it runs, and is all that it gets."""

from __future__ import annotations

import json

import pytest

from helpers.hub_server import HubServer
from mbench.core.errors import TaskError
from mbench.core.suite import LmEvalTask
from mbench.evaluate.lm_eval.loading import load
from mbench.evaluate.lm_eval.task_data import data_of
from mbench.storage.inputs import Inputs

TASK = """\
task: quiz
output_type: multiple_choice
test_split: test
doc_to_text: "{{q}}"
doc_to_choice: [a, b]
doc_to_target: 0
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""
SPEC = LmEvalTask(task="quiz")


def rows(*questions):
    return "".join(json.dumps({"q": question}) + "\n" for question in questions).encode()


@pytest.fixture
def quiz(tmp_path, store):
    """Documents and identity of the task with these lines in its file."""
    folder = tmp_path / "tasks"
    folder.mkdir()

    def quiz(*lines):
        (folder / "quiz.yaml").write_text(TASK + "\n".join(lines))
        inputs = Inputs(store)
        data = data_of("quiz", [folder], inputs)
        identities = [each.identity(inputs) for each in data]
        (task,) = load("quiz", SPEC, [folder], data).tasks.values()
        return [document["q"] for document in task.test_docs()], identities

    return quiz


@pytest.mark.parametrize(
    "lines",
    [
        ["dataset_path: acme/quiz"],
        ["dataset_path: acme/quiz", "dataset_kwargs: {data_files: {test: test.jsonl}}"],
        ["dataset_path: acme/quiz", "dataset_kwargs: {revision: main, streaming: false}"],
        ["dataset_path: json", "dataset_kwargs:",
         "  data_files: {test: 'hf://datasets/acme/quiz/test.jsonl'}"],
    ],
)  # fmt: skip
def test_a_dataset_of_the_hub_is_read_as_it_was_resolved(quiz, online, lines):
    online.push("dataset", "acme/quiz", {"test.jsonl": rows("one", "two")})
    documents, before = quiz(*lines)
    assert documents == ["one", "two"]
    assert quiz(*lines) == (documents, before)
    online.push("dataset", "acme/quiz", {"test.jsonl": rows("three"), "train.jsonl": rows("four")})
    documents, after = quiz(*lines)
    assert documents == ["three"]
    assert after != before


def test_folders_of_this_machine_count_by_content(quiz, tmp_path):
    for lines in (
        [f"dataset_path: {tmp_path}/data"],
        ["dataset_path: json", f"dataset_kwargs: {{data_dir: {tmp_path}/data}}"],
    ):
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "data" / "test.jsonl").write_bytes(rows("one"))
        documents, before = quiz(*lines)
        assert documents == ["one"]
        (tmp_path / "data" / "test.jsonl").write_bytes(rows("two"))
        documents, after = quiz(*lines)
        assert documents == ["two"]
        assert after != before


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["dataset_path: acme/none"], "task 'quiz': dataset acme/none: .*no such public repos"),
        (
            ["dataset_path: json", "dataset_kwargs: {data_files: {test: 'https://x.org/a.jsonl'}}"],
            "https://x.org/a.jsonl: only files of this machine and of the hub",
        ),
        (["custom_dataset: !function code.rows"], "code of its own .code.rows: load_dataset"),
    ],
)
def test_what_cannot_be_resolved_once_is_refused_by_name(quiz, online, tmp_path, lines, message):
    code = "import datasets\n\ndef rows(**kw):\n    return datasets.load_dataset('acme/quiz')\n"
    (tmp_path / "tasks" / "code.py").write_text(code)
    with pytest.raises(TaskError, match=message) as caught:
        quiz(*lines)
    assert "\n" not in str(caught.value)


def test_a_dataset_that_was_not_fetched_is_not_loaded(tmp_path):
    (tmp_path / "quiz.yaml").write_text(TASK + "dataset_path: acme/quiz\n")
    with HubServer() as hub:
        hub.push("dataset", "acme/quiz", {"test.jsonl": rows("one")})
        with pytest.raises(TaskError, match=r"task 'quiz': code of its own needs .*acme/quiz"):
            load("quiz", SPEC, [tmp_path])
        assert not hub.requests
