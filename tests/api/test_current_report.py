"""A run that finds everything done leaves its report alone, unless anything about it changed."""

from __future__ import annotations

import json
import os
import shutil

import pandas as pd
import pytest

from helpers.command import call
from helpers.tiny_suite import SUITE
from mbench.api import current_report

UNCHANGED = "nothing has changed"


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("done")
    (folder / "tiny.yaml").write_text(SUITE)
    first = call("run", "tiny.yaml", cwd=folder, store=folder / "s")
    assert first.returncode == 0, first.stderr
    assert UNCHANGED not in first.stderr
    return folder


def again(folder, *options):
    """Run once more; returns what was printed, and whether the report was written."""
    page = folder / "reports" / "tiny" / "index.html"
    before = page.stat().st_ino if page.exists() else None
    run = call("run", "tiny.yaml", *options, cwd=folder, store=folder / "s")
    assert run.returncode == 0, run.stderr
    assert page.exists()
    written = page.stat().st_ino != before
    assert written == (UNCHANGED not in run.stderr)
    return written


def test_what_has_not_changed_is_not_written_again(done):
    report = done / "reports" / "tiny"
    before = {path: path.read_bytes() for path in report.rglob("*") if path.is_file()}
    assert not again(done)
    assert {path: path.read_bytes() for path in report.rglob("*") if path.is_file()} == before
    # What did no work says so, and keeps the record of the run that did.
    assert b'"forward_tokens": 0' not in before[report / "results.json"]


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "reports/tiny/results.csv").unlink(),
        lambda folder: (folder / "reports/tiny/index.html").write_text("edited"),
        lambda folder: shutil.rmtree(folder / "reports/tiny/items"),
        lambda folder: os.utime(next((folder / "s/evaluations").glob("*.parquet"))),
        lambda folder: next((folder / "s/evaluations").glob("*.parquet")).unlink(),
        lambda folder: (folder / "tiny.yaml").write_text(SUITE + "description: other\n"),
        lambda folder: _item_texts(folder).unlink(),
        lambda folder: os.utime(next((folder / "s/statistics").iterdir())),
    ],
    ids=[
        *("removed", "edited", "items", "stored anew", "computed anew", "suite"),
        *("item texts", "statistic"),
    ],
)
def test_a_change_of_anything_writes_it_again_once(done, change):
    again(done)
    change(done)
    assert again(done)
    assert not again(done)


@pytest.mark.parametrize("place", ["HOME", "SHIPPED"])
def test_other_code_or_published_figures_write_it_again(done, tmp_path, monkeypatch, place):
    other = tmp_path / "other"
    other.mkdir()
    (other / "page.py").write_text("")
    monkeypatch.setattr(current_report, place, other)
    again(done)
    assert not again(done)
    (other / "page.py").write_text("pass")
    assert again(done)
    assert not again(done)


def _item_texts(folder):
    """What the items of a task ask, as it is stored."""
    facts = (folder / "s" / "facts").glob("*.json")
    return next(path for path in facts if '"item texts"' in path.read_text())


def test_another_command_writes_its_own_report(done):
    again(done)
    assert again(done, "--retain", "0.5")
    assert not again(done, "--retain", "0.5")
    assert again(done)


EARLY = SUITE.replace("limit: 6", "limit: 200")


@pytest.fixture(scope="module")
def early(tmp_path_factory):
    folder = tmp_path_factory.mktemp("early")
    (folder / "tiny.yaml").write_text(EARLY)
    first = call(
        *("run", "tiny.yaml", "--precision", "0.2", "--retain", "0.5"),
        cwd=folder,
        store=folder / "s",
    )
    assert first.returncode == 0, first.stderr
    return folder


def test_an_early_run_that_reached_its_precision_loads_nothing(early):
    asked = ("--precision", "0.2", "--retain", "0.5")
    words = ("run", "tiny.yaml", *asked)
    run = call(*words, "--json", cwd=early, store=early / "s")
    *_, done = map(json.loads, run.stdout.splitlines())
    before = done["early"]
    assert before > 0
    run = call(*words, "--json", cwd=early, store=early / "s")
    events = list(map(json.loads, run.stdout.splitlines()))
    assert events[-1]["unchanged"]
    assert events[-1]["early"] == before
    assert [event["event"] for event in events] == ["plan", "goal", "done"]


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "reports/tiny/index.html").write_text("edited"),
        lambda folder: os.utime(_look(folder)),
        lambda folder: _look(folder).unlink(),
        lambda folder: (folder / "tiny.yaml").write_text(EARLY + "description: other\n"),
    ],
    ids=["edited", "look stored anew", "look computed anew", "suite"],
)
def test_a_change_has_an_early_run_written_again_once(early, change):
    asked = ("--precision", "0.2", "--retain", "0.5")
    again(early, *asked)
    change(early)
    assert again(early, *asked)
    assert not again(early, *asked)


def test_another_precision_and_hours_run(early):
    again(early, "--precision", "0.2", "--retain", "0.5")
    assert again(early, "--precision", "0.3", "--retain", "0.5")
    for _ in range(2):
        assert again(early, "--hours", "0.000001", "--retain", "0.5")


def _look(folder):
    """The outcomes of a mask's first items."""
    looks = (folder / "s" / "evaluations").glob("*.parquet")
    return next(path for path in looks if len(pd.read_parquet(path)) == 120)
