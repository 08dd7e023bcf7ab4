"""Tasks that cannot be loaded are one line; what is loaded is known by its content."""

import json
import subprocess
import sys

import pytest

from helpers.toy_task import TOY, made_ready, tokenizer_of_words, write_task
from mbench.core.errors import TaskError
from mbench.core.suite import LmEvalTask
from mbench.evaluate.lm_eval.fingerprint import task_fingerprint
from mbench.evaluate.lm_eval.task_data import data_of
from mbench.storage.inputs import Inputs


@pytest.fixture(scope="module")
def tokenizer():
    return tokenizer_of_words()


@pytest.fixture
def folder(tmp_path):
    return write_task(tmp_path)


BROKEN = {
    "a name that nobody defines": ("toyy", {}, "did you mean 'toy'"),
    "a built-in name misspelt": ("arc_eazy", {}, "did you mean 'arc_easy'"),
    "malformed YAML": ("toy", {"bad.yaml": "task: [1"}, r"bad\.yaml:\d+:\d+: malformed"),
    "a key given twice": ("toy", {"bad.yaml": "task: x\ntask: y"}, r"bad\.yaml:2:1: .*repeated"),
    "not a mapping": ("toy", {"bad.yaml": "- task: x"}, "must be a mapping, not list"),
    "a name defined twice": ("toy", {"bad.yaml": "task: toy"}, "defined twice"),
    "a group within itself": (
        "round",
        {"round.yaml": "group: round\ntask: [toy, round]"},
        r"round\.yaml: the group 'round' contains itself",
    ),
    "a group of an unknown task": (
        "wide",
        {"wide.yaml": "group: wide\ntask: [toy, arc_eazy]"},
        "did you mean 'arc_easy'",
    ),
    "a group of nothing": ("bare", {"bare.yaml": "group: bare\ntask: []"}, "has no items"),
    "a missing include": ("toy", {"bad.yaml": "include: no.yaml"}, "No such file.*bad.yaml"),
    "missing data": (
        "lost",
        {"lost.yaml": "include: toy.yaml\ntask: lost\ndataset_kwargs: {data_files: no.jsonl}"},
        "no data file 'no.jsonl'",
    ),
    "an unreachable dataset": (
        "far",
        {"far.yaml": "include: toy.yaml\ntask: far\ndataset_path: a/b\ndataset_kwargs: null"},
        "needs the dataset a/b",
    ),
    "an unknown field": (
        "odd",
        {"odd.yaml": "include: toy.yaml\ntask: odd\nsurplus: 1"},
        "surplus",
    ),
    "a template of absent fields": (
        "absent",
        {"absent.yaml": "include: toy.yaml\ntask: absent\ndoc_to_text: '{{nothing}}'"},
        "nothing",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_cannot_be_loaded_is_one_line(case, folder, tokenizer):
    name, files, message = BROKEN[case]
    for file, text in files.items():
        (folder / file).write_text(text)
    with pytest.raises(TaskError, match=message) as caught:
        made_ready(folder, tokenizer, LmEvalTask(task=name))
    assert "\n" not in str(caught.value)


def test_wrong_settings_are_one_line(folder, tokenizer):
    with (folder / "toy.yaml").open("a") as stream:
        stream.write("num_fewshot: 0\n")
    with pytest.raises(TaskError, match="num_fewshot must be 0"):
        made_ready(folder, tokenizer, LmEvalTask(task="toy", num_fewshot=2))


def fingerprint(name, spec, folders, store):
    inputs = Inputs(store)
    data = data_of(spec.lm_eval_name(name), folders, inputs)
    return task_fingerprint(name, spec, folders, [each.identity(inputs) for each in data])


def test_fingerprint_follows_content_alone(folder, tmp_path_factory, store):
    (folder / "toy.yaml").rename(folder / "_toy.yaml")
    text = (folder / "_toy.yaml").read_text().replace("task: toy\n", "")
    (folder / "_toy.yaml").write_text(text + "process_docs: !function code.process\n")
    (folder / "toy.yaml").write_text("include: _toy.yaml\ntask: toy\n")
    (folder / "code.py").write_text("from other import process\n")
    (folder / "other.py").write_text("def process(docs):\n    return docs\n")
    first = fingerprint("toy", LmEvalTask(), [folder], store)
    assert json.loads(json.dumps(first)) == first
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "moved"
    folder.parent.rename(elsewhere)
    moved = [elsewhere / "tasks"]
    other_words = LmEvalTask(task="toy", metric="acc_norm", directory="unread")
    assert fingerprint("another name", other_words, moved, store) == first
    for path in ("toy.jsonl", "tasks/_toy.yaml", "tasks/code.py", "tasks/other.py"):
        with (elsewhere / path).open("a") as stream:
            stream.write("\n# changed\n")
        changed = fingerprint("toy", TOY, moved, store)
        assert changed != first
        first = changed
    for setting in ({"limit": 1}, {"num_fewshot": 0}, {"max_gen_toks": 1}):
        assert fingerprint("toy", LmEvalTask(**setting), moved, store) != first
    assert task_fingerprint("x", LmEvalTask(task="arc_easy"), [], [])["builtin"] == ["arc_easy"]


def test_fingerprints_need_no_heavy_import(folder):
    code = (
        "import sys; from pathlib import Path\n"
        "from mbench.evaluate.lm_eval.fingerprint import task_fingerprint\n"
        "from mbench.evaluate.lm_eval.task_data import data_of\n"
        "from mbench.core.suite import LmEvalTask\n"
        f"task_fingerprint('toy', LmEvalTask(), [Path({str(folder)!r})], [])\n"
        f"data_of('toy', [Path({str(folder)!r})], None)\n"
        "print(sorted({'lm_eval', 'torch', 'transformers', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
