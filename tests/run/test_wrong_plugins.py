"""Wrong plugins of all kinds in one run: own cells fail in one clear line, all others are equal."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from helpers.tiny_suite import SUITE, Watcher, go, plan_of
from helpers.wrong_plugins import (
    PLACELESS,
    WRONG,
)
from mbench.plan.plan import Plan
from mbench.plan.plugin_loading import load_registry
from mbench.run.session import Outcome
from mbench.storage.store import Store

BUILT_IN = ("reap", "random", "expert-sparsity")
LISTED = """methods:
  reap: {corpora: [bible]}
  random: {seeds: [0]}
  expert-sparsity: {corpora: [wiki]}
"""


def planned(folder: Path, store: Store, names: list[str]) -> Plan:
    files = []
    folder.mkdir()
    for name in names:
        home = folder / name
        home.mkdir()
        for other, text in WRONG[name].beside.items():
            (home / other).write_text(text)
        files.append(home / f"{name}.py")
        files[-1].write_text(WRONG[name].source.replace("NAME", name))
    methods = LISTED + "".join(f"  {name}: {{corpora: [bible]}}\n" for name in names)
    head, tail = SUITE.partition("methods:")[0], SUITE.partition("perplexity:")[2]
    text = f"{head}{methods}perplexity:{tail}"
    return plan_of(folder, store, text, tuple(files), retain=[0.5])


@dataclass(frozen=True)
class Run:
    plan: Plan
    outcome: Outcome
    store: Store
    warnings: list[str]


def run(folder: Path, names: list[str]) -> Run:
    store = Store(folder / "store")
    plan = planned(folder / "plugins", store, names)
    watcher = Watcher()
    outcome, _ = go(plan, store, watcher)
    return Run(plan, outcome, store, watcher.warnings)


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Run:
    return run(tmp_path_factory.mktemp("alone"), [])


@pytest.fixture(scope="module")
def together(tmp_path_factory) -> Run:
    return run(tmp_path_factory.mktemp("together"), list(WRONG))


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_plugin_fails_in_one_line_or_is_fine(together, name):
    (cell,) = (cell for cell in together.plan.cells if cell.method.name == name)
    reason = WRONG[name].reason
    if not reason:
        assert cell.mask_key in together.outcome.masks, together.outcome.mask_problems.get(cell.key)
        return
    problem = together.outcome.mask_problems[cell.key]
    assert problem.status in ("failed", "blocked")
    assert reason in problem.reason
    assert "\n" not in problem.reason
    # Where it is: the file, and the line wherever one line is to blame.
    assert f"{name}.py" in problem.reason or "candidate" in reason or name in PLACELESS


def test_everybody_elses_statistics_masks_and_figures_are_equal(alone, together):
    for method in BUILT_IN:
        (first,) = (cell for cell in alone.plan.cells if cell.method.name == method)
        (second,) = (cell for cell in together.plan.cells if cell.method.name == method)
        assert first.mask_key == second.mask_key
        mask = alone.outcome.masks[first.mask_key].keep
        assert (together.outcome.masks[second.mask_key].keep == mask).all()
        for jobs in first.statistics.values():
            for job in jobs:
                for path in alone.store.path(job.key).glob("*.safetensors"):
                    other = load_file(together.store.path(job.key) / path.name)
                    for name, array in load_file(path).items():
                        np.testing.assert_array_equal(other[name], array)
    for key, evaluation in alone.outcome.evaluations.items():
        other = together.outcome.evaluations[key]
        assert [m.value for m in other.metrics] == [m.value for m in evaluation.metrics]


def test_statistics_of_one_name_are_kept_apart(together):
    """Each of them is a softmax's sum times a factor of its own: 1, 2 and -1."""
    sums = {}
    for name in ("stat-half", "stat-like-another", "stat-same-name"):
        (cell,) = (cell for cell in together.plan.cells if cell.method.name == name)
        (job,) = cell.statistics["bible"]
        sums[name] = together.store.read_sums(job.key)["a"]
    np.testing.assert_allclose(sums["stat-like-another"], 2 * sums["stat-half"], rtol=1e-2)
    np.testing.assert_allclose(sums["stat-same-name"], -sums["stat-half"], rtol=1e-2)


def test_a_failure_is_tried_again_and_never_served_from_the_store(tmp_path, together):
    folder = tmp_path / "again"
    plan = planned(folder, together.store, ["nan"])
    file = folder / "nan" / "nan.py"
    file.write_text(file.read_text().replace("* np.nan", "* 1"))
    text = (folder / "suite.yaml").read_text()
    plan = plan_of(folder, together.store, text, (file,), retain=[0.5])
    outcome, _ = go(plan, together.store, Watcher())
    (cell,) = (cell for cell in plan.cells if cell.method.name == "nan")
    assert cell.mask_key in outcome.masks


def test_what_a_failed_statistic_had_collected_is_not_stored(together):
    kept = (together.store.root / "statistics").iterdir()
    names = {
        json.loads((one / "meta.json").read_text())["made_by"]["statistic"]["name"] for one in kept
    }
    assert not names & {name for name, wrong in WRONG.items() if wrong.reason}
    assert any("stat-raises" in text for text in together.warnings)


def test_files_beside_two_plugins_may_not_bear_one_name(tmp_path, together):
    folder = tmp_path / "other"
    folder.mkdir()
    (folder / "sibling_of_helper.py").write_text("def negated(values):\n    return values\n")
    path = folder / "other.py"
    path.write_text(WRONG["helper"].source.replace("NAME", "other"))
    (failure,) = load_registry([path]).failures
    assert "imports 'sibling_of_helper', which lies beside it" in failure.reason
