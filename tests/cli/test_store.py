"""`mbench store`: what it shows is what is there, and nothing goes that a suite needs."""

from __future__ import annotations

import gc
import json
import os
import shutil
import tempfile
import time
from functools import partial

import numpy as np
import pandas as pd
import pytest

import mbench
from helpers.command import call
from helpers.tiny_suite import SUITE, Watcher, go, plan_of
from mbench.storage.store import Store

ALL = SUITE.replace("seeds: [0, 1]", "seeds: [0]").replace(
    "  tb-coverage: {selector: {protected: 10}}\n", ""
)
LESS = ALL.replace("retain: [0.25, 0.5]", "retain: [0.5]")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder with a suite of two budgets, a part of it, and a store in which both were run."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "all.yaml").write_text(ALL)
    (folder / "less.yaml").write_text(LESS)
    store = Store(folder / "s")
    go(plan_of(folder, store, ALL), store)
    return folder


@pytest.fixture
def folder(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "copy")


@pytest.fixture
def ask(folder):
    def ask(*words, status=0):
        done = call("store", *words, cwd=folder, store=folder / "s")
        assert done.returncode == status, done
        return done

    return ask


def printed(done):
    return json.loads(done.stdout)


def test_list_shows_every_artefact_with_its_size_and_label(folder, ask):
    files = [path for path in (folder / "s").rglob("*") if path.is_file()]
    rows = printed(ask("list", "--json"))["artefacts"]
    assert sum(row["bytes"] for row in rows) == sum(path.stat().st_size for path in files)
    lines = ask("list", "expert-sparsity", "--kind", "masks").stdout.splitlines()
    assert len(lines) == 2 + 1
    assert "demo 75 % pruned, expert-sparsity" in lines[0] + lines[1]
    assert lines[2].startswith("masks: 2, ")


def test_show_gives_experts_of_a_mask_and_metrics_of_an_evaluation(folder, ask):
    (row,) = printed(ask("list", "50 % pruned, reap", "--kind", "masks", "--json"))["artefacts"]
    shown = printed(ask("show", row["key"][:9], "--json"))
    stored = json.loads((folder / "s" / "masks" / f"{row['key']}.json").read_text())
    first = next(iter(shown["kept in"]))
    assert shown["kept in"][first].split() == list(map(str, stored["content"]["kept"][first]))
    rows = printed(ask("list", "cloze_bible", "--kind", "evaluations", "--json"))["artefacts"]
    items = pd.read_parquet(folder / "s" / "evaluations" / f"{rows[0]['key']}.parquet")
    shown = printed(ask("show", rows[0]["key"], "--json"))
    assert shown["metric"]["acc"] == pytest.approx(np.mean(items["acc"]))
    statistics = printed(ask("list", "--kind", "statistics", "--json"))["artefacts"]
    assert "checksum: right" in ask("show", statistics[0]["key"][:12]).stdout
    # Labels of evaluations, and `mbench identify`, name masks by what they keep.
    number = stored["content"]["content_hash"][:12]
    assert any(f"mask {number} on cloze_bible" in each["label"] for each in rows)
    assert printed(ask("show", number, "--json"))["key"] == row["key"]
    assert "no artefact" in ask("show", "zz", status=2).stderr
    assert "artefacts have keys that start with ''" in ask("show", "", status=2).stderr


def test_verify_names_what_is_damaged_and_moves_it_only_if_told(folder, ask):
    assert "0 damaged" in ask("verify").stdout
    path = sorted((folder / "s" / "statistics").glob("*/layer-*"))[0]
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    key = path.parent.name
    named = printed(ask("verify", "--json", status=3))
    assert [row["key"] for row in named["damaged"]] == [key]
    assert key[:12] in ask("show", key[:12], status=3).stdout
    assert path.exists()
    assert "set aside as damaged/statistics" in ask("verify", "--set-aside", status=3).stdout
    assert not path.exists()
    ask("verify")
    assert "damaged and set aside: 1" in ask("list").stdout
    assert "would remove" in ask("prune", "--damaged").stdout
    ask("prune", "--damaged", "--yes")
    assert list((folder / "s" / "damaged").rglob("layer-*")) == []


def test_prune_keeps_what_a_suite_needs_and_what_is_not_its_own(folder, ask):
    store = folder / "s"
    (store / "notes.txt").write_text("mine")
    (store / "masks" / "mine.json").write_text("mine")
    ask("prune", "less.yaml")  # a plan may store what it found out
    before = {row["key"]: row for row in printed(ask("list", "--json"))["artefacts"]}
    gone = printed(ask("prune", "less.yaml", "--json"))["artefacts"]
    assert {row["kind"] for row in gone} == {"masks", "evaluations"}
    assert all("75 % pruned" in row["label"] for row in gone if row["kind"] == "masks")
    assert len(printed(ask("list", "--json"))["artefacts"]) == len(before)
    assert printed(ask("prune", "less.yaml", "--older-than", "1h", "--json"))["artefacts"] == []
    ask("prune", "less.yaml", "--yes")
    after = printed(ask("list", "--json"))["artefacts"]
    assert {row["key"] for row in after} == before.keys() - {row["key"] for row in gone}
    assert (store / "notes.txt").read_text() == (store / "masks" / "mine.json").read_text()
    watcher = Watcher()
    go(plan_of(folder, Store(store), LESS), Store(store), watcher)
    assert watcher.tokens == 0


def test_prune_by_age(folder, ask):
    old = next((folder / "s" / "masks").iterdir())
    os.utime(old, (time.time() - 10 * 24 * 3600,) * 2)
    gone = printed(ask("prune", "--older-than", "9d", "--yes", "--json"))["artefacts"]
    assert [row["key"] for row in gone] == [old.stem]
    assert not old.exists()
    assert "12h, 30d or 8w" in ask("prune", "--older-than", "soon", status=2).stderr
    assert "say what may go" in ask("prune", status=2).stderr


def test_a_copy_of_what_a_suite_needs_runs_it_and_holds_nothing_damaged(folder, ask):
    mask = sorted((folder / "s" / "masks").iterdir())[0]
    mask.write_bytes(b"{}")
    ask("copy", "everything", status=3)
    assert not (folder / "everything" / "masks" / mask.name).exists()
    mask.unlink()
    everything = printed(ask("copy", "everything", "--json"))
    assert everything["copied"] == 0
    ask("copy", "some", "less.yaml")
    assert len(list((folder / "some" / "masks").iterdir())) < len(
        list((folder / "everything" / "masks").iterdir())
    )
    text = "".join(path.read_text() for path in (folder / "some" / "facts").iterdir())
    assert "hash of" not in text
    for path in (folder / "some").rglob("*"):
        if path.is_file():
            original = folder / "s" / path.relative_to(folder / "some")
            assert path.read_bytes() == original.read_bytes()
    call_there = partial(call, cwd=folder, store=folder / "some")
    assert call_there("store", "verify").returncode == 0


def test_a_store_that_is_not_there_is_not_made(folder, ask):
    done = ask("list", "--store", "nowhere", status=2)
    assert "there is no store at nowhere" in done.stderr
    assert not (folder / "nowhere").exists()


def test_who_only_looks_makes_no_store(folder, tmp_path, monkeypatch):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.setenv("MBENCH_STORE", "rel/store")
    assert call("plan", "less.yaml", cwd=folder, store="rel/store").returncode == 0
    done = call("identify", "demo", "demo", cwd=folder, store="rel/store")
    assert "all 24 in each layer" in done.stdout, done
    monkeypatch.chdir(folder)
    assert len(mbench.plan("less.yaml", store=tmp_path / "none").costs) == 1
    gc.collect()
    assert not (folder / "rel").exists()
    assert not (tmp_path / "none").exists()
    assert not list(temporary.iterdir())


def test_a_file_is_no_store(folder):
    for verb in ("plan", "run"):
        done = call(verb, "less.yaml", cwd=folder, store="all.yaml")
        assert done.returncode == 2
        assert done.stderr == "error: cannot use the store all.yaml: it is no folder\n"
