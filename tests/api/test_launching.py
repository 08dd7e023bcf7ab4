"""Workers that submitit starts, here as its local jobs: real processes."""

from __future__ import annotations

import json
import platform
import re

import pytest

from helpers.command import call
from helpers.shared_work import suite
from mbench.api.launching import options_of
from mbench.core.errors import SuiteError

pytest.importorskip("submitit", reason="submitit is not installed (mbench[submitit])")

SUITE = suite(retain=[0.5], seeds=2)

PLUGIN = """
import os
import sys
import mbench

if {"1/1", "1/2"} & {*sys.argv}:
    sys.stderr.write("no room here")
    sys.stderr.flush()
    os._exit(2)

@mbench.hookimpl
def mbench_methods():
    return [mbench.Method("mine", scorer="reap", corpora=1)]
"""
"""Ends the first worker before it begins, as on a machine of its own."""


def run(folder, *options):
    done = call("run", "suite.yaml", "--json", *options, cwd=folder, store=folder / "s")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    return done.returncode, events, done.stderr


def test_jobs_do_the_work_and_the_run_writes_the_report(tmp_path):
    """Also where one of them ends early."""
    (tmp_path / "suite.yaml").write_text(SUITE)
    (tmp_path / "mine.py").write_text(PLUGIN)
    launcher = ("--launcher", "submitit", "--workers", "2", "--plugin", "mine.py")
    local = ("--launcher-option", "cluster=local", "--launcher-option", "timeout_min=60")
    status, events, err = run(tmp_path, *launcher, *local)
    assert status == 0, err
    (done,) = (event for event in events if event["event"] == "done")
    assert done["problems"] == []
    results = json.loads((tmp_path / "reports/shared/results.json").read_text())
    assert results["provenance"]["runs"][0]["cost"]["forward_tokens"] == 0
    logs = list((tmp_path / "reports" / "shared.jobs").glob("*_log.out"))
    assert len(logs) == 2
    (told,) = (event["text"] for event in events if event["event"] == "warning")
    early = r"a worker ended early, others did its share: job \d+"
    assert re.fullmatch(f"{early} on {platform.node()}: no room here", told)
    # Nothing is left, so that no job is started.
    status, events, err = run(tmp_path, *launcher, *local)
    assert (status, events[-1]["event"]) == (0, "done"), err
    assert not any("jobs" in event.get("text", "") for event in events)
    assert sorted((tmp_path / "reports" / "shared.jobs").glob("*_log.out")) == sorted(logs)


def test_where_no_job_could_work_nothing_is_computed_here(tmp_path):
    (tmp_path / "suite.yaml").write_text(SUITE)
    (tmp_path / "mine.py").write_text(PLUGIN)
    launcher = ("--launcher", "submitit", "--launcher-option", "cluster=local")
    status, _, err = run(tmp_path, *launcher, "--plugin", "mine.py")
    assert status == 2
    assert re.search(rf"no worker did its share: job \d+ on {platform.node()}: no room here;", err)
    assert not list((tmp_path / "s").glob("evaluations/*"))


def test_options_are_pairs_that_submitit_knows(tmp_path):
    assert options_of(("a=1", "b=x=y")) == {"a": 1, "b": "x=y"}
    with pytest.raises(SuiteError, match="KEY=VALUE"):
        options_of(("a",))
    (tmp_path / "suite.yaml").write_text(SUITE)
    local = ("--launcher", "submitit", "--launcher-option", "cluster=local")
    status, _, err = run(tmp_path, *local, "--launcher-option", "nonsense=1")
    assert status == 2
    assert "nonsense" in err
    assert len(err.strip().splitlines()) == 1
    status, _, err = run(tmp_path, "--workers", "2")
    assert status == 2
    assert "--launcher" in err
