"""Workers that submitit starts, here as its local jobs: real processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from mbench.api.launching import options_of
from mbench.core.errors import SuiteError

pytest.importorskip("submitit", reason="submitit is not installed (mbench[submitit])")

SUITE = """\
name: launched
models: {demo: {plugin: demo, dtype: float32}}
retain: [0.5]
seeds: 2
corpora:
  wiki: {source: {plugin: wiki, split: calibration}, sequences: 4, length: 64}
calibration: [wiki]
methods: {random: , reap: }
tasks:
  cloze_wiki: {metric: acc, limit: 20}
"""


def run(folder, *options, suite="suite.yaml"):
    done = subprocess.run(
        [sys.executable, "-m", "mbench", "run", suite, "--json", "--store", "s", *options],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=400,
    )
    events = [json.loads(line) for line in done.stdout.splitlines()]
    return done.returncode, events, done.stderr


def test_jobs_do_the_work_and_the_run_writes_the_report(tmp_path):
    (tmp_path / "suite.yaml").write_text(SUITE)
    launcher = ("--launcher", "submitit", "--workers", "2")
    local = ("--launcher-option", "cluster=local", "--launcher-option", "timeout_min=5")
    status, events, err = run(tmp_path, *launcher, *local)
    assert status == 0, err
    (done,) = (event for event in events if event["event"] == "done")
    assert done["problems"] == []
    results = json.loads((tmp_path / "reports/launched/results.json").read_text())
    assert results["provenance"]["runs"][0]["cost"]["forward_tokens"] == 0
    logs = list((tmp_path / "reports" / "launched.jobs").glob("*_log.out"))
    assert len(logs) == 2


def test_where_no_job_could_work_nothing_is_computed_here(tmp_path):
    (tmp_path / "suite.yaml").write_text(SUITE)
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "claims").write_text("a file where workers need a folder")
    launcher = ("--launcher", "submitit", "--launcher-option", "cluster=local")
    status, _, err = run(tmp_path, *launcher)
    assert status == 2
    assert "no worker did its share" in err
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
