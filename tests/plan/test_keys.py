"""Keys see what decides a thing and nothing else: the code of a folder, plugins, inputs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import mbench
from helpers.places import ROOT
from helpers.tiny_suite import plan_of
from mbench.plan.computing_code import COMPUTED_BY, Code, installed_code
from mbench.plan.fact_keys import efficiency_key, model_facts_key
from mbench.plan.plan import Plan, make_plan
from mbench.plan.plugin_loading import load_registry
from mbench.plan.suite_file import load_suite
from mbench.storage.source_code import Source

PACKAGE = Path(mbench.__file__).parent
FILES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))

MOVED_BY = {
    "core/interfaces.py": {"mask"},
    "moe/": {
        *("statistic", "probe", "evaluation", "efficiency", "model facts", "admission"),
        *("recognised", "stored size"),
    },
    "evaluate/lm_head.py": {"probe"},
    "evaluate/": {"item texts", "evaluation", "task size", "admission"},
    "plan/admission/": {"admission"},
    "storage/texts.py": {"admission", "text"},
    "storage/text_files/": {"admission", "text"},
    "core/search.py": {"mask"},
    "core/stand_ins.py": {"mask"},
    "run/mask_maker.py": {"mask"},
    "run/stability.py": {"mask"},
    "run/footprint.py": {"efficiency"},
    "run/probe.py": {"probe"},
    "run/probe_passes.py": {"probe"},
}
"""Kinds of things whose code an edit changes; everywhere else it changes none."""


def keys_of(plan: Plan) -> dict[str, dict[str, str]]:
    """Kind -> what -> digest."""
    (model,) = plan.models
    unpruned = model.unpruned_mask.content_hash
    keys: dict[str, dict[str, str]] = {"statistic": {}, "mask": {}}
    for cell in plan.cells:
        keys["mask"][cell.label] = cell.mask_key.digest
        for corpus, jobs in cell.statistics.items():
            for job in jobs:
                keys["statistic"][f"{job.statistic.name} on {corpus}"] = job.key.digest
    keys["evaluation"] = {
        task.name: plan.evaluation_key(model, unpruned, "sliced", task).digest
        for task in plan.tasks
    }
    keys["task size"] = {t.name: plan.task_size_key(model, t).digest for t in plan.tasks}
    efficiency = efficiency_key(plan.code, model.identity, 12, {"new_tokens": 4}, "a machine")
    keys["efficiency"] = {"12": efficiency.digest}
    facts = model_facts_key(plan.code, model.name, model.key, ["layers"])
    keys["model facts"] = {"facts": facts.digest}
    return keys


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("copy") / "mbench"
    shutil.copytree(PACKAGE, folder, ignore=shutil.ignore_patterns("__pycache__", "templates"))
    return folder


def code_of(folder: Path) -> Code:
    installed_code.cache_clear()
    return installed_code(folder)


@pytest.mark.parametrize("file", FILES)
def test_an_edit_in_a_file_changes_exactly_the_code_of_what_it_computes(copy, file):
    before = code_of(copy)
    text = (copy / file).read_text()
    (copy / file).write_text(text + "# edited\n")
    after = code_of(copy)
    (copy / file).write_text(text)
    changed = {kind for kind in COMPUTED_BY if before.of(kind) != after.of(kind)}
    expected = [kinds for place, kinds in MOVED_BY.items() if file.startswith(place)]
    assert changed == set().union(*expected)


@pytest.mark.parametrize(
    ("file", "moved"),
    [
        ("moe/experts.py", {"statistic", "mask", "evaluation", "efficiency", "model facts"}),
        ("evaluate/packing.py", {"evaluation", "task size"}),
        ("run/mask_maker.py", {"mask"}),
        ("export/write.py", set()),
        ("__init__.py", set()),
    ],
)
def test_keys_follow_the_code_and_masks_their_statistics(tmp_path, store, copy, file, moved):
    before = keys_of(plan_of(tmp_path, store, code=code_of(copy)))
    assert before == keys_of(plan_of(tmp_path, store))
    text = (copy / file).read_text()
    (copy / file).write_text(text + "# edited\n")
    after = keys_of(plan_of(tmp_path, store, code=code_of(copy)))
    (copy / file).write_text(text)
    assert {kind for kind in before if before[kind] != after[kind]} == moved
    for kind in moved - {"mask"}:  # random masks look at no statistic
        assert not set(before[kind].values()) & set(after[kind].values())


def test_the_keys_of_the_quickstart_are_pinned(store):
    """A change here orphans what users have stored: it must be meant, and told in CHANGELOG.

    What computes is replaced by names, so that only the plan, the texts, the model and the tasks
    decide.
    """
    hashes = {part: part for part in installed_code().hashes}
    code = Code(hashes, {"torch": "1", "transformers": "2"}, _named)
    suite, source = load_suite(ROOT / "suites" / "quickstart.yaml")
    keys = keys_of(make_plan(suite, source, load_registry(), store, code=code))
    pinned = json.loads(Path(__file__).with_name("quickstart_keys.json").read_text())
    assert {kind: {n: key[:16] for n, key in of.items()} for kind, of in keys.items()} == pinned


def _named(modules):
    return Source(" ".join(module.__name__ for module in modules), {})
