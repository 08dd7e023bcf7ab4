"""Workers as users start them: real processes on one store, of which some are killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from mbench.api.working import Shard
from mbench.core.errors import SuiteError

SUITE = """\
name: shared
models: {demo: {plugin: demo, dtype: float32}}
retain: [0.25, 0.5]
seeds: 3
corpora:
  wiki: {source: {plugin: wiki, split: calibration}, sequences: 4, length: 64}
calibration: [wiki]
methods: {random: , reap: , tb-coverage: {selector: {protected: 6}}}
tasks:
  cloze_bible: {metric: acc, limit: 40}
  cloze_wiki: {metric: acc, limit: 40}
average: {name: Avg, tasks: [cloze_bible, cloze_wiki]}
"""


def command(verb, folder, *options):
    return [
        *(sys.executable, "-m", "mbench", verb, str(folder / "suite.yaml"), "--json"),
        *("--store", str(folder / "store"), *options),
    ]


def worker(folder, shard):
    return subprocess.Popen(
        command("worker", folder, "--shard", shard),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def run(folder, name):
    done = subprocess.run(
        command("run", folder, "--output", str(folder / name)),
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def ended(process):
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return json.loads(out.splitlines()[-1])


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "suite.yaml").write_text(SUITE)
    return tmp_path


def evaluations(folder):
    return {path.name for path in (folder / "store" / "evaluations").glob("*.parquet")}


def test_workers_share_all_work_and_a_killed_one_loses_nothing(folder, tmp_path_factory):
    doomed = worker(folder, "1/3")
    while not (folder / "store" / "evaluations").exists() or not evaluations(folder):
        assert doomed.poll() is None
        time.sleep(0.02)
    doomed.send_signal(signal.SIGKILL)
    doomed.communicate()
    had = len(evaluations(folder))
    others = [worker(folder, "2/3"), worker(folder, "3/3")]
    told = [ended(other) for other in others]
    made = sum(each["evaluations"] for each in told)
    # Nothing twice: what the first one stored, and what it had begun, which left nothing behind.
    assert made == len(evaluations(folder)) - had
    assert all(each["problems"] == 0 for each in told)
    assert not list((folder / "store" / "claims").glob("*.claim"))

    events = run(folder, "shared")
    (kind,) = (event for event in events if event["event"] == "done")
    assert kind["problems"] == []
    alone = tmp_path_factory.mktemp("alone")
    (alone / "suite.yaml").write_text(SUITE)
    run(alone, "alone")
    shared = Path(folder / "shared" / "shared")
    for file in ("results.csv", "items.parquet"):
        one, two = shared / file, alone / "alone" / "shared" / file
        if file.endswith("csv"):
            assert one.read_bytes() == two.read_bytes()
        else:
            pd.testing.assert_frame_equal(pd.read_parquet(one), pd.read_parquet(two))
    cost = json.loads((shared / "results.json").read_text())["provenance"]["runs"][0]["cost"]
    assert cost["forward_tokens"] == 0


def test_a_shard_is_given_or_told_by_slurm():
    assert Shard.read("2/8") == Shard(1, 8)
    for wrong in ("0/8", "9/8", "2", "a/b", "-1/3", "1/0", ""):
        with pytest.raises(SuiteError, match="I/N"):
            Shard.read(wrong)
    slurm = {"SLURM_ARRAY_TASK_ID": "14", "SLURM_ARRAY_TASK_COUNT": "3"}
    assert Shard.of_slurm({}) is None
    first = {"SLURM_ARRAY_TASK_MIN": "10", "SLURM_ARRAY_TASK_STEP": "2"}
    assert Shard.of_slurm({**slurm, **first}) == Shard(2, 3)
