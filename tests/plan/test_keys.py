"""Keys see what decides a thing and nothing else: the code of a folder, plugins, inputs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import mbench
from helpers.places import ROOT
from helpers.tiny_suite import plan_of
from mbench.core.interfaces import ExpertMask
from mbench.plan.cells import Plan, make_plan
from mbench.plan.keys import Code, efficiency_key, installed_code, model_facts_key
from mbench.plan.plugin_loading import load_registry
from mbench.plan.suite_file import load_suite
from mbench.storage.source_code import Source

PACKAGE = Path(mbench.__file__).parent
FOLDERS = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))

MOVED_BY = {
    "core": {"mask"},
    "storage": set(),
    "moe": {"statistic", "mask", "evaluation", "efficiency", "model facts"},
    "evaluate": {"evaluation", "task cost"},
    "plan": set(),
    "run": {"mask", "efficiency"},
    "report": set(),
    "export": set(),
    "cli": set(),
}
"""Kinds of keys that an edit in a folder moves; a mask's key holds those of its statistics."""


def keys_of(plan: Plan) -> dict[str, dict[str, str]]:
    """Kind -> what -> digest."""
    (model,) = plan.models
    unpruned = ExpertMask(model.all_kept()).content_hash
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
    keys["task cost"] = {t.name: plan.task_cost_key(model, t).digest for t in plan.tasks}
    efficiency = efficiency_key(plan.code, model.identity, 12, {"new_tokens": 4}, "a machine")
    keys["efficiency"] = {"12": efficiency.digest}
    facts = model_facts_key(plan.code, model.name, model.key, ["layers"])
    keys["model facts"] = {"facts": facts.digest}
    return keys


@pytest.mark.parametrize("folder", FOLDERS)
def test_an_edit_in_a_folder_moves_exactly_the_keys_of_what_it_computes(tmp_path, store, folder):
    copy = tmp_path / "mbench"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__", "templates"))
    before = keys_of(plan_of(tmp_path, store, code=installed_code(copy)))
    assert before == keys_of(plan_of(tmp_path, store))
    (copy / folder / "__init__.py").write_text("# edited\n")
    installed_code.cache_clear()
    after = keys_of(plan_of(tmp_path, store, code=installed_code(copy)))
    moved = {kind for kind in before if before[kind] != after[kind]}
    assert moved == MOVED_BY[folder]
    for kind in moved - {"mask"}:
        assert not set(before[kind].values()) & set(after[kind].values())


def test_the_keys_of_the_quickstart_are_pinned(store):
    """A change here orphans what users have stored: it must be meant, and told in CHANGELOG.

    What computes is replaced by names, so that only the plan, the texts, the model and the tasks
    decide.
    """
    folders = {folder: folder for folder in FOLDERS}
    code = Code(folders, {"torch": "1", "transformers": "2"}, _named)
    suite, source = load_suite(ROOT / "suites" / "quickstart.yaml")
    keys = keys_of(make_plan(suite, source, load_registry(), store, code=code))
    pinned = json.loads(Path(__file__).with_name("quickstart_keys.json").read_text())
    assert {kind: {n: key[:16] for n, key in of.items()} for kind, of in keys.items()} == pinned


def _named(modules):
    return Source(" ".join(module.__name__ for module in modules), {})
