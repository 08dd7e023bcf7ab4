"""A run on a real Ray cluster of which a node dies, beside one on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from helpers.places import ROOT

pytest.importorskip("ray", reason="Ray is not installed (mbench[ray])")

SUITE = """\
name: shared
models: {demo: {plugin: demo, dtype: float32}}
retain: [0.25, 0.5]
seeds: 4
corpora:
  wiki: {source: {plugin: wiki, split: calibration}, sequences: 4, length: 64}
calibration: [wiki]
methods: {random: , reap: }
tasks:
  cloze_bible: {metric: acc, limit: 60}
  cloze_wiki: {metric: acc, limit: 60}
"""

ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": str(ROOT / "tests"),
    "OMP_NUM_THREADS": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


def run(folder, store, *options, **environment):
    command = [sys.executable, "-m", "mbench", "run", "suite.yaml", "--json", "--store", store]
    return subprocess.Popen(
        [*command, "--output", store + " reports", *options],
        cwd=folder,
        env={**ENVIRONMENT, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process):
    out, err = process.communicate(timeout=400)
    assert process.returncode == 0, err
    (done,) = (event for event in map(json.loads, out.splitlines()) if event["event"] == "done")
    assert done["problems"] == []


def test_a_cluster_that_loses_a_node_gives_the_figures_of_one_machine(tmp_path):
    (tmp_path / "suite.yaml").write_text(SUITE)
    ended(run(tmp_path, "local"))
    cluster = subprocess.Popen(
        [sys.executable, "-m", "helpers.ray_cluster"],
        env=ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        address = cluster.stdout.readline().strip()
        if not address:
            pytest.skip("Ray itself starts no cluster on this machine")
        distributed = run(tmp_path, "apart", "--executor", "ray", RAY_ADDRESS=address)
        evaluations = tmp_path / "apart" / "evaluations"
        until = time.monotonic() + 300
        while time.monotonic() < until and not (
            evaluations.exists() and any(evaluations.iterdir())
        ):
            assert distributed.poll() is None, distributed.communicate()
            time.sleep(0.05)
        cluster.stdin.write("kill\n")
        cluster.stdin.flush()
        ended(distributed)
    finally:
        cluster.communicate(timeout=180)
    one, two = (tmp_path / f"{name} reports" / "shared" for name in ("local", "apart"))
    assert (one / "results.csv").read_bytes() == (two / "results.csv").read_bytes()
    tables = [pd.read_parquet(each / "items.parquet") for each in (one, two)]
    pd.testing.assert_frame_equal(*tables)


def test_what_does_not_go_with_a_cluster_is_refused(tmp_path):
    (tmp_path / "suite.yaml").write_text(SUITE)
    for options, words in (
        (("--executor", "ray", "--precision", "0.1"), "for this machine"),
        (("--gpus", "1"), "--executor ray"),
    ):
        process = run(tmp_path, "s", *options)
        _, err = process.communicate(timeout=180)
        assert process.returncode == 2
        assert words in err
        assert len(err.strip().splitlines()) == 1


def test_without_ray_one_line_says_what_to_install(tmp_path):
    (tmp_path / "suite.yaml").write_text(SUITE)
    hidden = tmp_path / "hidden" / "ray"
    hidden.mkdir(parents=True)
    (hidden / "__init__.py").write_text("raise ImportError('hidden')")
    path = f"{Path(hidden).parent}{os.pathsep}{ROOT / 'tests'}"
    process = run(tmp_path, "s", "--executor", "ray", PYTHONPATH=path)
    _, err = process.communicate(timeout=180)
    assert process.returncode == 2
    assert "mbench[ray]" in err
