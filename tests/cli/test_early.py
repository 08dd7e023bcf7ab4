"""`--precision` and `--hours`, as a user gives them, and as the Python API takes them."""

import json
import re

import pytest

import mbench
from helpers.command import call
from mbench.core.early import EarlyGoal
from mbench.core.errors import MbenchError

SUITE = """\
name: small
models:
  demo: {plugin: demo, dtype: float32}
retain: [0.75]
corpora:
  bible: {source: {plugin: bible, split: calibration}, sequences: 4, length: 32}
methods:
  reap: {corpora: [bible]}
tasks:
  cloze_bible: {metric: acc, limit: 300}
"""


def test_a_run_says_from_how_many_items_a_figure_is(tmp_path):
    (tmp_path / "small.yaml").write_text(SUITE)
    words = ("run", "small.yaml", "--output", "reports")
    done = call(*words, "--precision", "0.2", cwd=tmp_path, store=tmp_path / "store")
    assert done.returncode == 0, done.stderr
    assert "(180/300 items)" in done.stdout + done.stderr
    planned = call("plan", "small.yaml", "--json", cwd=tmp_path, store=tmp_path / "store")
    (cost,) = json.loads(planned.stdout)["models"]
    assert (cost["evaluations_cached"], cost["evaluations_begun"]) == (1, 1)
    planned = call("plan", "small.yaml", "--hours", "5", cwd=tmp_path, store=tmp_path / "store")
    assert "the most it takes, and all may be done within the hours" in planned.stdout
    for precision, reached in (("0.2", True), ("0.01", False)):
        early = ("plan", "small.yaml", "--precision", precision, "--set", "processes=2")
        planned = call(*early, cwd=tmp_path, store=tmp_path / "store").stdout
        assert ("nothing to do, what is stored is enough" in planned) == reached
        assert ("note: early verdicts are found in one process, not in 2" in planned) != reached
    done = call(*words, cwd=tmp_path, store=tmp_path / "store")
    assert done.returncode == 0
    # What is missing, and nothing else, was priced; a run also compares a few lines with the
    # model's own forward.
    (took,) = re.findall(r"([0-9,]+) forward tokens", done.stderr)
    assert int(took.replace(",", "")) == pytest.approx(cost["evaluation_tokens"], rel=0.05)
    assert "/300" not in done.stdout + done.stderr
    words = ("plan", "small.yaml", "--hours", "0.001", "--set", "processes=2")
    planned = call(*words, cwd=tmp_path, store=tmp_path / "store")
    assert "nothing to do: everything is in the store" in planned.stdout
    assert "the hours" not in planned.stdout + planned.stderr
    assert "one process" not in planned.stdout


def test_hours_too_few_for_any_verdict_are_told_beforehand(tmp_path):
    (tmp_path / "small.yaml").write_text(SUITE)
    call("check", "small.yaml", cwd=tmp_path, store=tmp_path / "store")
    words = ("plan", "small.yaml", "--hours")
    for hours in ("0.00001", "5"):
        planned = call(*words, hours, cwd=tmp_path, store=tmp_path / "store")
        # Of a machine on which nothing was measured, nothing is promised.
        assert "is not known before speeds are measured" in planned.stdout
        for too_much in ("suffice for no", "within the hours", "first minute", "~"):
            assert too_much not in planned.stdout
    without = call("plan", "small.yaml", cwd=tmp_path, store=tmp_path / "store")
    assert "a run measures it in its first minute" in without.stdout
    told = call("plan", "small.yaml", "--json", cwd=tmp_path, store=tmp_path / "store")
    (cost,) = json.loads(told.stdout)["models"]
    assert {cost[time] for time in ("seconds", "mask_seconds", "first_seconds")} == {None}
    run = ("run", "small.yaml", "--output", "reports", "--limit", "20")
    assert call(*run, cwd=tmp_path, store=tmp_path / "store").returncode == 0
    # Another part of the task takes what this one did, a token.
    for hours, said in (("0.00001", True), ("5", False)):
        planned = call(*words, hours, cwd=tmp_path, store=tmp_path / "store")
        assert ("; the hours suffice for no verdict" in planned.stdout) == said
        assert "~: rough: tasks not measured here" in planned.stdout
        assert re.search("  ~[0-9]+ (s|min)  ", planned.stdout)
    told = call("plan", "small.yaml", "--json", cwd=tmp_path, store=tmp_path / "store")
    (cost,) = json.loads(told.stdout)["models"]
    # Of two masks, each with the same items, one is the unpruned model.
    assert cost["seconds"] - cost["first_seconds"] == pytest.approx(cost["mask_seconds"])


def test_the_goal_is_told_to_programs_and_kept(tmp_path):
    (tmp_path / "small.yaml").write_text(SUITE)
    words = ("run", "small.yaml", "--output", "reports", "--limit", "20", "--json")
    done = call(*words, "--hours", "1.5", cwd=tmp_path, store=tmp_path / "store")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    (goal,) = (event for event in events if event["event"] == "goal")
    assert (goal["precision"], goal["hours"]) == (None, 1.5)
    results = mbench.run(
        tmp_path / "small.yaml",
        precision=0.2,
        limit=20,
        quiet=True,
        output=tmp_path,
        store=tmp_path / "store",
    )
    (run,) = results.provenance.runs
    assert run.goal == EarlyGoal(precision=0.2)
    assert run.command[-2:] == ("--precision", "0.2")
    assert run.cost.seconds["in all"] >= max(run.cost.seconds.values())


@pytest.mark.parametrize("option", ["precision", "hours"])
def test_what_is_no_positive_number_is_refused(option, tmp_path):
    (tmp_path / "small.yaml").write_text(SUITE)
    done = call("run", "small.yaml", f"--{option}", "0", cwd=tmp_path, store=tmp_path / "store")
    assert done.returncode == 2
    assert f"{option} takes a number above 0, got 0" in done.stderr
    with pytest.raises(MbenchError, match=f"{option} takes a number above 0, got -1"):
        mbench.run(tmp_path / "small.yaml", store=tmp_path / "store", **{option: -1})
