"""Task files are code: functions need a word in the suite, templates stay in their sandbox."""

from __future__ import annotations

import json
import random

import pytest

from helpers.lm_eval_runs import MadeUp, stock, write
from helpers.places import DATA
from mbench.core.errors import SuiteError, TaskError
from mbench.core.suite import LmEvalTask
from mbench.evaluate.lm_eval.prepared_task import build
from mbench.evaluate.lm_eval.task_code import code_of
from mbench.plan.computing_code import installed_code
from mbench.plan.plugin_loading import load_registry
from mbench.plan.suite_file import load_suite
from mbench.plan.tasks import plan_tasks
from mbench.storage.inputs import Inputs
from mbench.storage.store import Store

needs_data = pytest.mark.skipif(
    not (DATA / "tasks").is_dir(), reason=f"no sample of the real task files in {DATA}"
)
TASK = """
    task: toy
    dataset_path: json
    dataset_kwargs: {data_files: {test: toy.jsonl}}
    output_type: multiple_choice
    test_split: test
    doc_to_text: "{{q}}"
    doc_to_choice: "{{choices}}"
    doc_to_target: answer
    metric_list: [{metric: acc}]
"""
MARKS = """
    from pathlib import Path
    Path(__file__).with_name("ran").touch()
    def same(docs):
        return docs
"""


def changed(folder, name, line):
    """The task with one key more, under another name."""
    (folder / f"{name}.yaml").write_text(f"include: toy.yaml\ntask: {name}\n{line}\n")


@pytest.fixture
def folder(tmp_path):
    """A task with a function, and one that replaces it by nothing."""
    items = [{"q": f"{at}", "choices": ["a", "b"], "answer": at % 2} for at in range(4)]
    (tmp_path / "toy.jsonl").write_text("\n".join(map(json.dumps, items)))
    write(tmp_path / "toy.yaml", TASK)
    write(tmp_path / "code.py", MARKS)
    write(
        tmp_path / "own.yaml", "include: toy.yaml\ntask: own\nprocess_docs: !function code.same\n"
    )
    write(tmp_path / "over.yaml", "include: own.yaml\ntask: over\nprocess_docs: null\n")
    write(tmp_path / "all.yaml", "group: all\ntask: [toy, own]\n")
    return tmp_path


@pytest.fixture(scope="module")
def registry():
    return load_registry()


def planned(folder, registry, task, *settings):
    path = folder / "suite.yml"
    path.write_text(
        "name: x\nmodels: {demo: {plugin: demo}}\nretain: [0.5]\nmethods: {random: {}}\n"
        f"tasks:\n  mine: {{task: {task}, directory: {folder}}}\n"
    )
    suite, source = load_suite(path, set_values=settings)
    return plan_tasks(suite, source, registry, installed_code(), Inputs(Store(folder / "store")))


@pytest.mark.parametrize(("task", "file"), [("own", "own"), ("over", "over"), ("all", "own")])
def test_functions_of_local_files_need_a_word(task, file, folder, registry):
    with pytest.raises(SuiteError) as caught:
        planned(folder, registry, task)
    line = str(caught.value)
    assert line.startswith(f"{folder}/suite.yml:6:")
    assert f"{folder}/{file}.yaml runs !function code.same" in line
    assert "trust_code: true" in line
    assert "\n" not in line
    assert not (folder / "ran").exists()
    (trusted,) = planned(folder, registry, task, "tasks.mine.trust_code=true")
    build("mine", trusted.spec, trusted.directories)
    assert (folder / "ran").exists()


def test_templates_alone_and_tasks_of_plugins_need_none(folder, registry):
    assert planned(folder, registry, "toy")
    registry = load_registry()
    registry.task_directories.append(folder)
    suite = folder / "suite.yml"
    suite.write_text(
        "name: x\nmodels: {demo: {plugin: demo}}\nretain: [0.5]\nmethods: {random: {}}\n"
        "tasks: {own: {}}\n"
    )
    inputs = Inputs(Store(folder / "store"))
    assert plan_tasks(*load_suite(suite), registry, installed_code(), inputs)


@needs_data
def test_local_files_may_use_what_is_installed_with_lm_eval(folder):
    assert not list(code_of("mbench_hellaswag", [DATA / "tasks"], []))
    assert not list(code_of("hellaswag", [DATA / "tasks"], []))
    # A folder beside the task file goes before what is installed.
    shadow = folder / "lm_eval" / "tasks" / "hellaswag"
    shadow.mkdir(parents=True)
    (shadow / "utils.py").write_text("def process_docs(docs):\n    return docs\n")
    reference = "lm_eval.tasks.hellaswag.utils.process_docs"
    write(
        folder / "own.yaml", f"include: toy.yaml\ntask: own\nprocess_docs: !function {reference}\n"
    )
    assert [function.reference for _, function in code_of("own", [folder], [])] == [reference]


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ q.__init__.__globals__ }}",
        "{{ cycler.__init__.__globals__.os.system('true') }}",
        "{{ choices.append('c') }}",
        "{% for a in range(10**9) %}{% endfor %}",
        "{{ 'a' * 10**9 }}",
        "{{ 9 ** 999999999 }}",
        "{{ q.format_map(q) }}{{ '{0.__class__}'.format(q) }}",
    ],
)
def test_templates_see_their_document_alone(template, folder):
    write(
        folder / "bad.yaml", f"include: toy.yaml\ntask: bad\ndoc_to_text: {json.dumps(template)}\n"
    )
    with pytest.raises(TaskError, match="task 'bad' cannot be loaded") as caught:
        build("bad", LmEvalTask(), [folder])
    assert "\n" not in str(caught.value)


def test_code_that_draws_has_the_seeds_of_lm_eval(folder):
    write(
        folder / "draws.py",
        """
        import random
        def drawn(**_):
            import datasets
            order = random.sample(range(50), 10)
            docs = [{"q": str(at), "choices": ["a", "b"], "answer": 0} for at in order]
            return {"test": datasets.Dataset.from_list(docs)}
        """,
    )
    changed(folder, "own", "custom_dataset: !function draws.drawn")
    random.seed(7)
    state = random.getstate()
    prompts = [item.instances[0].args[0] for item in build("own", LmEvalTask(), [folder]).items]
    assert random.getstate() == state
    results = stock(MadeUp(), folder, LmEvalTask(task="own"), folder)
    assert prompts == [sample["arguments"][0][0] for sample in results["samples"]["own"]]


def test_documents_that_are_drawn_are_drawn_once(folder):
    write(
        folder / "draws.py",
        """
        import random
        def shuffled(docs):
            order = list(range(len(docs)))
            random.shuffle(order)
            return docs.select(order)
        """,
    )
    changed(folder, "own", "process_docs: !function draws.shuffled")
    first, second = (build("own", LmEvalTask(), [folder]) for _ in range(2))
    documents = [item.doc for item in first.items]
    assert documents == [item.doc for item in second.items]
    assert documents == list(first.tasks["own"].eval_docs)
