"""Runs on a real Ray cluster that is full at first and loses machines and answers."""

from __future__ import annotations

import os
import platform
import signal
import sys

import pandas as pd
import pytest
import torch

from helpers.command import call
from helpers.forked import Forked
from helpers.places import ROOT
from helpers.ray_cluster import ENVIRONMENT, hasty, impatient, losing_an_answer, ray_cluster
from helpers.shared_work import suite

pytest.importorskip("ray", reason="Ray is not installed (mbench[ray])")

pytestmark = pytest.mark.usefixtures("one_thread")

SUITE = suite(limit=60, source="{files: [words.md]}")

PLUGIN = """
import os
import sys
import time
from pathlib import Path

import mbench
from mbench.run.evaluation_stage import EvaluationStage


def wait(place):  # An actor's, until the test has done what it does at that moment.
    Path(f"{place}.{os.getpid()}").touch()
    while not Path(f"{place}.go").exists():
        time.sleep(0.02)


if "ray" in sys.modules and sys.modules["ray"].is_initialized():
    wait("loading")
    evaluate, begun = EvaluationStage.run, []

    def after_one(stage, pending):
        if begun:
            wait("second")
        begun.append(pending)
        evaluate(stage, pending)

    EvaluationStage.run = after_one


@mbench.hookimpl
def mbench_methods():
    return [mbench.Method("mine", scorer="reap", corpora=1)]
"""

RAY = ("run", "suite.yaml", "--plugin", "plugin.py", "--json", "--executor", "ray")


@pytest.fixture(scope="module")
def cluster():
    with ray_cluster() as cluster:
        if not cluster.address:
            pytest.skip("Ray itself starts no cluster on this machine")
        yield cluster


def written(folder):
    """With files that are named from there, where no machine of the cluster was started."""
    (folder / "suite.yaml").write_text(SUITE)
    (folder / "words.md").write_text((ROOT / "README.md").read_text())
    (folder / "plugin.py").write_text(PLUGIN)
    return folder


@pytest.fixture
def folder(tmp_path):
    return written(tmp_path)


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The report of a run on this machine."""
    folder = written(tmp_path_factory.mktemp("local"))
    assert call("run", "suite.yaml", "--quiet", cwd=folder, store=folder / "s").returncode == 0
    return folder / "reports" / "shared"


def start(folder, cluster, first):
    environment = {**ENVIRONMENT, "RAY_ADDRESS": cluster.address}
    return Forked(*RAY, cwd=folder, store=folder / "s", environment=environment, first=first)


def assert_equal(one, two):
    assert (one / "results.csv").read_bytes() == (two / "results.csv").read_bytes()
    tables = [pd.read_parquet(each / "items.parquet") for each in (one, two)]
    pd.testing.assert_frame_equal(*tables)


def waiting(folder, place):
    """Actors that came to a place of the plugin, also those that are gone since."""
    return len(list(folder.glob(f"{place}.[0-9]*")))


def test_whatever_a_cluster_loses_the_figures_are_those_of_one_machine(folder, cluster, expected):
    cluster.tell("fill")
    apart = start(folder, cluster, losing_an_answer)

    def told():
        return [event["text"] for event in apart.events("warning")]

    apart.wait_until(lambda: any("waiting" in text for text in told()), "warning")
    cluster.tell("free")
    apart.wait_until(lambda: waiting(folder, "loading") == 2, "actors")
    cluster.tell("kill", "odd", "add")
    (folder / "loading.go").touch()
    apart.wait_until(lambda: waiting(folder, "second") == 2, "actors")
    cluster.tell("kill")
    (folder / "second.go").touch()
    done = apart.ended()
    assert done.returncode == 0, done.stderr
    (end,) = apart.events("done")
    assert end["problems"] == []
    assert told()[0] == (
        "waiting for Ray to start an actor, which takes 1 CPU and 0 GPUs: the cluster has 2"
        " machines with 1 CPU and 0 GPUs; 0 CPUs and 0 GPUs of all are free"
    )
    assert "not ready on " in told()[1]
    # Once, though there is room on that machine until the end.
    (differs,) = (text for text in told() if "torch" in text)
    here = torch.__version__.partition("+")[0]
    assert differs.endswith(f": versions torch is '1', and {here!r} where the run was started")
    # Of the machine that was killed, and of the answer that was lost.
    assert sum("was lost, process " in text for text in told()) == 2, told()
    assert_equal(folder / "reports" / "shared", expected)


def test_an_actor_that_hangs_is_told_and_does_not_keep_a_run_from_its_end(
    folder, cluster, expected
):
    cluster.tell("add")
    running = start(folder, cluster, hasty)
    (folder / "loading.go").touch()
    running.wait_until(lambda: waiting(folder, "second") >= 2, "actors")
    stopped = int(next(folder.glob("second.[0-9]*")).suffix[1:])
    os.kill(stopped, signal.SIGSTOP)
    (folder / "second.go").touch()
    done = running.ended()
    assert done.returncode == 0, done.stderr
    assert running.events("done")[0]["problems"] == []
    told = [event["text"] for event in running.events("warning")]
    assert any(f"process {stopped} on {platform.node()} may hang" in text for text in told)
    assert_equal(folder / "reports" / "shared", expected)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--executor", "ray", "--precision", "0.1"), "for this machine"),
        (("--gpus", "1"), "--executor ray"),
        (
            ("--executor", "ray", "--gpus", "2"),
            "--gpus 2: an actor takes 1 CPU and 2 GPUs, which no machine of the Ray cluster has:",
        ),
    ],
)
def test_what_does_not_go_with_a_cluster_is_refused(folder, cluster, monkeypatch, options, words):
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    done = call("run", "suite.yaml", *options, cwd=folder, store=folder / "s")
    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_signal_ends_a_run_on_a_cluster_as_any_other(folder, cluster):
    running = start(folder, cluster, bool)
    running.wait_until(lambda: waiting(folder, "loading"), "actors")
    running.send_signal(signal.SIGTERM)
    done = running.ended()
    assert done.returncode == 128 + signal.SIGTERM
    assert "interrupted; run the same command again to continue" in done.stderr
    assert "SIGTERM" not in done.stderr


@pytest.mark.parametrize("what", ["stun", "behead"])
def test_a_cluster_that_loses_its_head_ends_a_run_with_one_line(folder, cluster, what):
    running = start(folder, cluster, impatient)
    running.wait_until(lambda: waiting(folder, "loading"), "actors")
    cluster.tell(what)
    done = running.ended()
    assert done.returncode == 2
    assert done.stderr.startswith("error: the head of the Ray cluster has not answered for 1 s")
    assert len(done.stderr.strip().splitlines()) == 1
    if what == "stun":
        cluster.tell("wake")


def test_without_ray_one_line_says_what_to_install(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    done = call(*RAY, cwd=folder, store=folder / "s")
    assert done.returncode == 2
    assert "mbench[ray]" in done.stderr
