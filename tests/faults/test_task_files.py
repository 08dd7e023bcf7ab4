"""Whatever task files, their data and code hold, it ends soon, with one line if it is wrong."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import strategies as st

from helpers.hostile_templates import HOSTILE
from helpers.odd_values import (
    Raw,
    TooLong,
    block,
    bomb,
    places_of_errors,
    stopped_after,
    try_many,
    with_damage,
    with_mistakes,
)
from mbench.core.errors import MbenchError, TaskError
from mbench.core.suite import LmEvalTask
from mbench.evaluate.lm_eval.fingerprint import task_fingerprint
from mbench.evaluate.lm_eval.prepared_task import build
from mbench.evaluate.lm_eval.task_data import data_of
from mbench.evaluate.lm_eval.task_files import read
from mbench.storage.inputs import Inputs
from mbench.storage.store import Store

CHOICE = """
task: toy
tag: [toys]
dataset_path: json
dataset_name: null
dataset_kwargs: {data_files: {test: toy.jsonl, train: toy.jsonl}}
output_type: multiple_choice
training_split: train
test_split: test
process_docs: FUNCTION.same
doc_to_text: "Q: {{q}}\\nA:"
doc_to_choice: "{{choices}}"
doc_to_target: answer
target_delimiter: " "
fewshot_delimiter: "\\n\\n"
fewshot_config: {sampler: first_n}
num_fewshot: 1
description: "Answer.\\n"
repeats: 1
should_decontaminate: false
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: acc_norm, aggregation: mean, higher_is_better: true}
metadata: {version: 1.0}
"""
GENERATED = """
task: toy
dataset_path: json
dataset_kwargs: {data_files: {test: toy.jsonl}}
output_type: generate_until
test_split: test
doc_to_text: "{{q}}"
doc_to_target: "{{choices[answer]}}"
generation_kwargs: {until: ["."], max_gen_toks: 4, do_sample: false, temperature: 0.0}
filter_list:
  - name: first
    filter: [{function: regex, regex_pattern: "(a+)"}, {function: take_first}]
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true, ignore_case: true}]
"""
GROUP = """
group: toy
group_alias: Toys
task:
  - part
  - {task: part, num_fewshot: 0, task_alias: other}
  - {group: inner, task: [part], aggregate_metric_list: [{metric: acc, weight_by_size: true}]}
aggregate_metric_list: [{metric: acc, aggregation: mean, weight_by_size: false}]
metadata: {version: 1}
"""
PART = (
    CHOICE.replace("task: toy", "task: part")
    .replace("tag: [toys]\n", "")
    .replace("process_docs: FUNCTION.same\n", "")
)
INCLUDING = "include: part.yaml\ntask: toy\ndoc_to_text: '{{q}}?'\n"
ITEMS = [
    {"q": "the cat sat on", "choices": ["the mat", "a dog"], "answer": 0},
    {"q": "birds fly", "choices": ["south", "north"], "answer": 1},
    {"q": "rain falls from", "choices": ["clouds", "stones"], "answer": 0},
]
CODE = """
import sys

def same(docs):
    return docs

def raises(*_, **__):
    raise KeyError("a\\nb")

def exits(*_, **__):
    sys.exit(1)

def nothing(*_, **__):
    return None
"""
BASES = {"choice": CHOICE, "generated": GENERATED, "group": GROUP, "including": INCLUDING}
FUNCTIONS = [
    *("!function code.raises", "!function code.exits", "!function code.nothing"),
    *("!function no.such", "!function os.getcwd", "!function code", "!function ../code.same"),
    *("!function [a]", "!function ''"),
]
SECONDS = 30.0
"""Of the processor, on a slow machine; a good task takes a third of a second."""
TREES = {name: yaml.safe_load(text) for name, text in BASES.items()}


def of_code(tree):
    """The reference to a function as YAML has it."""
    if isinstance(tree, dict):
        return {key: of_code(value) for key, value in tree.items()}
    if isinstance(tree, str) and tree.startswith("FUNCTION"):
        return Raw(tree.replace("FUNCTION", "!function code"))
    return Raw(tree) if isinstance(tree, str) and tree.startswith("!") else tree


@st.composite
def trees(draw):
    tree = draw(with_mistakes(TREES[draw(st.sampled_from(sorted(TREES)))], most=2))
    if draw(st.booleans()):
        keys = ["doc_to_text", "doc_to_target", "doc_to_choice", "process_docs", "process_results"]
        keys += ["class", "custom_dataset", "description", "test_split", "metric_list", "include"]
        tree[draw(st.sampled_from(keys))] = draw(st.sampled_from([*HOSTILE, *FUNCTIONS]))
    return block(of_code(tree))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tasks")
    for name in BASES:
        write(folder / name, BASES[name].replace("FUNCTION", "!function code"))
        assert built(folder / name) == ("built", None)
    return folder / "choice"


def write(folder, text):
    folder.mkdir(exist_ok=True)
    (folder / "toy.jsonl").write_text("\n".join(map(json.dumps, ITEMS)))
    (folder / "code.py").write_text(CODE)
    (folder / "part.yaml").write_text(PART)
    data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    (folder / "toy.yaml").write_bytes(data)


def built(folder: Path) -> tuple[str, str | None]:
    """What came of building the task, and what is wrong with how it ended."""
    started = time.process_time()
    spec, inputs = LmEvalTask(task="toy", limit=2), Inputs(Store(folder / "store"))
    try:
        with stopped_after(5 * SECONDS):
            data = data_of("toy", [folder], inputs)
            identities = [each.identity(inputs) for each in data]
            task_fingerprint("toy", spec, [folder], identities)
            build("toy", spec, [folder], data)
    except TooLong:
        return "other", "does not end"
    except MbenchError as error:
        line = str(error)
        if "\n" in line or len(line) > 3000:
            return "refused", f"not one line: {line[:80]}"
        status = "refused"
    except BaseException as error:
        return "other", f"traceback: {type(error).__name__} at {places_of_errors(error)}"
    else:
        status = "built"
    seconds = time.process_time() - started
    return status, None if seconds < SECONDS else f"took {round(seconds)} s"


@pytest.mark.parametrize("examples", [50, pytest.param(3000, marks=pytest.mark.long)])
@pytest.mark.parametrize("kind", ["structure", "text", "data"])
def test_no_task_file_ends_in_a_traceback(kind, examples, folder):
    good = CHOICE.replace("FUNCTION", "!function code")
    lines = "\n".join(map(json.dumps, ITEMS))
    inputs = {
        "structure": trees(),
        "text": with_damage(good),
        "data": with_damage(lines) | st.lists(with_mistakes(ITEMS), min_size=1).map(in_lines),
    }[kind]

    def attempt(given):
        write(folder, good if kind == "data" else given)
        if kind == "data":
            (folder / "toy.jsonl").write_bytes(given)
        return built(folder)

    trials = try_many(inputs, attempt, examples)
    assert not trials.problems, trials.report()


CASES = {
    "an alias bomb": (f"x: {bomb()}", "has more than 50000 values with all its aliases"),
    "itself": ("x: &x {<<: *x}", r"toy\.yaml:1:12: malformed task file: \*x contains itself"),
    "deep nesting": ("x: " + "[" * 900, r"toy\.yaml:1:43: .*nested deeper than 40 levels"),
    "an impossible date": ("x: 2020-13-45", r"toy\.yaml:1:4: .*no timestamp: '2020-13-45'"),
    "an unknown tag": ("x: !!python/name:os.system", r"toy\.yaml:1:4: .*could not determine"),
    "a circle": ("include: toy.yaml", "the file includes itself"),
    "a device": ("include: /dev/zero", "/dev/zero: it is no regular file"),
    "a pipe": ("include: pipe", "pipe: it is no regular file"),
    "a huge file": ("include: huge", "huge: it has more than 1 048 576 bytes"),
    "a circle of links": ("include: loop", "loop"),
    "another kind of name": (
        "task: {a: b}",
        "task must be a name or a group.s list, not",
    ),
    "another kind of member": ("group: x\ntask: [1]", "a group lists names of tasks, .* not 1"),
    "another kind of data": (
        "task: x\ndataset_kwargs: {data_files: {test: null}}",
        "data_files must be a file",
    ),
    "a function without module": ("x: !function f", "!function takes module.function, got 'f'"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_cannot_be_a_task_file_is_one_line(case, tmp_path):
    text, problem = CASES[case]
    (tmp_path / "toy.yaml").write_text(text)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(10**8)
    started = time.process_time()
    with pytest.raises(TaskError, match=problem) as caught:
        read([tmp_path])
    assert time.process_time() - started < 10
    assert "\n" not in str(caught.value)


def test_a_folder_of_everything_is_refused_before_it_is_read(tmp_path):
    started = time.process_time()
    with pytest.raises(TaskError, match="more than 20000 files and folders: name the folder"):
        read([Path("/")])
    assert time.process_time() - started < 10


DEEP = '{"q": ' + "[" * 100_000 + "]" * 100_000 + "}"


@pytest.mark.parametrize(
    ("first", "second", "problem"),
    [
        (ITEMS[0], DEEP, r"toy\.jsonl:2: nested deeper than 100 levels"),
        (None, json.dumps(ITEMS[0]), r"toy\.jsonl:1: not a JSON object"),
    ],
)
def test_data_that_would_crash_its_parser_is_refused(first, second, problem, folder):
    write(folder, CHOICE.replace("FUNCTION", "!function code"))
    (folder / "toy.jsonl").write_text(f"{json.dumps(first)}\n{second}")
    inputs = Inputs(Store(folder / "store"))
    with pytest.raises(TaskError, match=problem):
        build("toy", LmEvalTask(task="toy"), [folder], data_of("toy", [folder], inputs))


def in_lines(lists):
    written = [line for items in lists for item in items for line in [block({"x": item})[5:]]]
    return "".join(written).encode("utf-8", "surrogatepass")
