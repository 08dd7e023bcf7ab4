"""Workers as users start them: real processes on one store, of which some are killed."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from helpers.command import call
from helpers.forked import Forked
from helpers.held import after_one_evaluation
from helpers.shared_work import suite
from mbench.api.working import Shard
from mbench.core.errors import SuiteError

pytestmark = pytest.mark.usefixtures("one_thread")

SUITE = suite("tb-coverage: {selector: {protected: 6}}")


def worker(folder, shard, first=bool):
    words = ("worker", "suite.yaml", "--json", "--shard", shard)
    return Forked(*words, cwd=folder, store=folder / "store", first=first)


def run(folder, name):
    done = call("run", "suite.yaml", "--json", "--output", name, cwd=folder, store=folder / "store")
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def said(process):
    """The last of what a worker tells."""
    done = process.ended()
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "suite.yaml").write_text(SUITE)
    return tmp_path


def evaluations(folder):
    return {path.name for path in (folder / "store" / "evaluations").glob("*.parquet")}


def test_workers_share_all_work_and_a_killed_one_loses_nothing(folder, tmp_path_factory):
    doomed = worker(folder, "1/3", first=after_one_evaluation)
    doomed.wait_until_held()
    doomed.kill()
    doomed.wait()
    had = len(evaluations(folder))
    assert had
    others = [worker(folder, "2/3"), worker(folder, "3/3")]
    told = [said(other) for other in others]
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


def test_a_shard_is_given_or_told_by_slurm(monkeypatch):
    assert Shard.read("2/8") == Shard(1, 8)
    for wrong in ("0/8", "9/8", "2", "a/b", "-1/3", "1/0", "", "1/\u00b2", "\u0661/2"):
        with pytest.raises(SuiteError, match="I/N"):
            Shard.read(wrong)
    slurm = {"SLURM_ARRAY_TASK_ID": "14", "SLURM_ARRAY_TASK_COUNT": "3"}
    assert Shard.of_slurm({}) is None
    first = {"SLURM_ARRAY_TASK_MIN": "10", "SLURM_ARRAY_TASK_STEP": "2"}
    assert Shard.of_slurm({**slurm, **first}) == Shard(2, 3)
    # --array=10,12,14,40: steps are then 1, and any four places will do.
    uneven = {**slurm, "SLURM_ARRAY_TASK_COUNT": "4", "SLURM_ARRAY_TASK_MIN": "10"}
    assert Shard.of_slurm(uneven) == Shard(0, 4)
    for name, value in (("ID", "x"), ("COUNT", "0"), ("COUNT", ""), ("STEP", "0"), ("MIN", "-1")):
        with pytest.raises(SuiteError, match=f"SLURM_ARRAY_TASK_{name} is '{value}'"):
            Shard.of_slurm({**slurm, f"SLURM_ARRAY_TASK_{name}": value})
    # One that is given is used, and what SLURM says beside it is told.
    for name, value in slurm.items():
        monkeypatch.setenv(name, value)
    assert Shard.chosen("3/3") == (Shard(2, 3), "")
    shard, told = Shard.chosen("1/3")
    assert shard == Shard(0, 3)
    assert told == "--shard 1/3 is used, though SLURM says 3/3 of its job array"
    assert Shard.chosen(None) == (Shard(2, 3), "")


@pytest.mark.parametrize("option", ["--precision", "--hours"])
def test_early_verdicts_are_for_runs_without_workers(folder, option):
    done = call("worker", "suite.yaml", option, "1", cwd=folder, store=folder / "store")
    assert done.returncode == 2
    assert done.stderr == (
        f"error: {option}: workers evaluate all items; it is for `mbench run`, without workers\n"
    )
