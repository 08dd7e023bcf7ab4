"""Whole runs on the embedded model: what is computed, what is kept, and what failures cost."""

from __future__ import annotations

import json
import random
import shutil
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import mbench_plugins.demo
from helpers.another_worker import AnotherWasQuicker
from helpers.forked import Forked
from helpers.no_room import no_room_for_masks
from helpers.tiny_suite import SUITE, Watcher, go, plan_of, results_of
from mbench.cli.summary import list_problems
from mbench.run.runner import Runner
from mbench.storage.results_folder import write
from mbench.storage.store import Store

DEMO = Path(mbench_plugins.demo.__file__).parent / "model"


def test_a_run_is_complete_and_a_second_one_does_no_forward_pass(tmp_path, store):
    plan = plan_of(tmp_path, store)
    first, table = go(plan, store)
    assert (table["status"] == "ok").all()
    assert set(table["method"]) == {"none", *plan.suite.methods}
    assert first.forward_tokens > 0
    pruned = table[table["method"] != "none"]
    assert (pruned["experts_kept"] == np.floor(pruned["retain"] * 24)).all()
    for mask in first.masks.values():
        assert len(set(mask.keep.sum(axis=1))) == 1
    # Equal masks by different methods are one evaluation.
    by_method = table[table["retain"] == 0.5].groupby("method")["mask"].first()
    assert by_method["reap"] == by_method["same-as-reap"]
    distinct = table.groupby(["mask", "task"]).ngroups
    assert len(first.evaluations) == distinct

    second, again = go(plan_of(tmp_path, store), store)
    assert second.forward_tokens == 0
    pd.testing.assert_frame_equal(table, again)


def test_figures_follow_from_the_items(tmp_path, store):
    plan = plan_of(tmp_path, store, methods=["reap"], retain=[0.5])
    outcome, table = go(plan, store)
    write(results_of(plan, outcome), tmp_path / "out")
    items = pd.read_parquet(tmp_path / "out" / "items.parquet")
    for row in table.itertuples():
        own = items[(items["mask"] == row.mask) & (items["task"] == row.task)]
        if row.metric == "perplexity":
            expected = np.exp(own["nll"].sum() / own["tokens"].sum())
        elif row.metric == "mean_nll":
            expected = own["nll"].sum() / own["tokens"].sum()
        elif row.metric == "bits_per_byte":
            expected = own["nll"].sum() / np.log(2) / own["bytes"].sum()
        else:
            expected = own[row.metric].mean()
        assert row.value == pytest.approx(expected, rel=1e-12)


def test_an_interrupted_run_resumes_with_nothing_done_twice(tmp_path, store):
    whole, other = Watcher(), Store(tmp_path / "other")
    _, expected = go(plan_of(tmp_path, other), other, whole)
    generator = random.Random(0)
    finished: set[tuple[str, str]] = set()
    interruptions = 0
    for _ in range(60):
        watcher = Watcher(interrupt_after=generator.randrange(whole.tokens // 2))
        outcome, table = go(plan_of(tmp_path, store), store, watcher)
        done = table[table["status"] == "ok"]
        assert finished <= set(zip(done["mask"], done["task"], strict=True))
        finished = set(zip(done["mask"], done["task"], strict=True))
        if not outcome.interrupted:
            break
        interruptions += 1
        assert set(table["status"]) <= {"ok", "interrupted"}
    assert interruptions > 1
    pd.testing.assert_frame_equal(table, expected)


def test_a_killed_run_leaves_only_whole_artefacts(tmp_path, store):
    (tmp_path / "suite.yaml").write_text(SUITE)
    generator = random.Random(1)
    for _ in range(2):
        process = Forked("run", "suite.yaml", "--quiet", cwd=tmp_path, store=store.root)
        # Into the work.
        process.wait_until(lambda: list(store.root.glob("statistics/*")), "statistic")
        time.sleep(generator.random() * 2)
        process.kill()
        process.wait()
    for artefact in store.root.glob("masks/[!.]*.json"):
        assert json.loads(artefact.read_text())["content"]
    for artefact in store.root.glob("evaluations/[!.]*.parquet"):
        assert len(pd.read_parquet(artefact))
    _, table = go(plan_of(tmp_path, store), store)
    assert (table["status"] == "ok").all()


def test_a_task_that_fails_leaves_the_others(tmp_path, store):
    text = SUITE + "  cloze_wiki: {metric: brier, limit: 3}\n"
    plan = plan_of(tmp_path, store, text, methods=["random"], retain=[0.5])
    watcher = Watcher()
    _, table = go(plan, store, watcher)
    status = table.groupby("task")["status"].unique().map(list).to_dict()
    assert status["cloze_bible"] == status["ppl-wiki"] == ["ok"]
    assert status["cloze_wiki"] == ["failed"]
    assert any("brier" in text for text in watcher.warnings)


def test_a_mask_that_cannot_be_applied_leaves_the_others(tmp_path, store, monkeypatch):
    plan = plan_of(tmp_path, store, retain=[0.5], methods=["reap"], limit=3)
    no_room_for_masks(monkeypatch)
    cells = results_of(plan, go(plan, store)[0]).cells
    unpruned, reap = (cell.tasks.values() for cell in cells)
    assert {own.status for own in unpruned} == {"ok"}
    assert {own.status for own in reap} == {"failed"}
    assert all("out of memory" in own.reason for own in reap)


def test_what_another_process_evaluated_is_announced_all_the_same(tmp_path, store):
    alone, shared = Watcher(), Watcher()
    go(plan_of(tmp_path, Store(tmp_path / "alone")), Store(tmp_path / "alone"), alone)
    plan = plan_of(tmp_path, store)
    Runner(plan, store, shared, AnotherWasQuicker(plan, store)).run()
    assert len(shared.evaluated) == len(set(shared.evaluated)) > 0
    assert sorted(shared.evaluated) == sorted(alone.evaluated)
    assert shared.tokens == alone.tokens


def test_weights_that_cannot_be_read_are_one_problem(tmp_path, store):
    broken = tmp_path / "model"
    shutil.copytree(DEMO, broken)
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1_000_000])
    plan = plan_of(tmp_path, store, models=[f"demo={broken}"], retain=[0.5])
    watcher = Watcher()
    outcome = Runner(plan, store, watcher).run()
    ((_, why),) = list_problems(results_of(plan, outcome))
    assert "model.safetensors is truncated" in why
    assert len(watcher.warnings) == 1


def test_a_method_may_have_a_router_mode_of_its_own(tmp_path, store):
    changes = ["methods.reap-preserved={use: reap, corpora: [bible], router: preserved}"]
    plan = plan_of(tmp_path, store, set_values=changes, methods=["reap"], retain=[0.5])
    both = plan_of(tmp_path, store, set_values=changes, retain=[0.5])
    _, alone = go(plan, store)
    _, table = go(both, store)
    table = table.set_index("method")
    ours, theirs = table.loc["reap"], table.loc["reap-preserved"]
    assert set(ours["mask"]) == set(theirs["mask"])
    assert (set(ours["router"]), set(theirs["router"])) == ({"sliced"}, {"preserved"})
    assert (ours["value"].to_numpy() != theirs["value"].to_numpy()).any()
    whole = plan_of(tmp_path, store, set_values=["router=preserved"], retain=[0.5])
    _, preserved = go(whole, store)
    preserved = preserved.set_index("method").loc["reap"]
    assert theirs["value"].tolist() == preserved["value"].tolist()
    alone = alone.set_index("method").loc["reap"]
    assert ours["value"].tolist() == alone["value"].tolist()
