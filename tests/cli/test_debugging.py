"""`--debug` shows a plugin's own lines wherever it fails; `--pdb` stops at them."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys

import pytest

from helpers.command import call
from helpers.held import LONG
from helpers.tiny_suite import SUITE

PLUGIN = """\
import numpy as np
import mbench

class Measured(mbench.Statistic):
    name = "measured"
    def measure(self, batch):
        return batch.measured

class Inspected(mbench.Statistic):
    name = "inspected"
    def inspect(self, weights):
        return weights.inspected

class Asks(mbench.Scorer):
    name = "asks"
    @property
    def needs(self):
        return self.needed
    def score(self, profile):
        return None

class Checks(mbench.Scorer):
    name = "checks"
    def check(self, budget):
        budget.checked()
    def score(self, profile):
        return None

class Scores(mbench.Scorer):
    name = "scores"
    needs = (mbench.RoutingSums(),)
    def score(self, profile):
        kept = profile.sums(mbench.RoutingSums())
        return np.log(kept["scored"])

class OnMeasured(Scores):
    name = "measured"
    needs = (Measured(),)

class OnInspected(Scores):
    name = "inspected"
    needs = (Inspected(),)

class Selects(mbench.Selector):
    name = "selects"
    def select(self, scores, budget, rng):
        return scores.selected

class Builds(mbench.MaskBuilder):
    name = "builds"
    def build(self, selection, scores, budget, candidate):
        return selection.built

class Made(mbench.Scorer):
    name = "made"
    def __init__(self, params):
        self.made
    def score(self, profile):
        return None

@mbench.hookimpl
def mbench_components():
    return [Asks, Checks, Scores, OnMeasured, OnInspected, Selects, Builds, Made]

@mbench.hookimpl
def mbench_methods():
    names = ("asks", "checks", "scores", "measured", "inspected", "made")
    made = [mbench.Method(name, scorer=name, corpora=1) for name in names]
    return [
        *made,
        mbench.Method("selects", selector="selects"),
        mbench.Method("builds", scorer="reap", builder="builds", corpora=1),
    ]

@mbench.hookimpl
def mbench_panels(results):
    return results.panelled
"""
FAILING = {
    "asks": "return self.needed",
    "checks": "budget.checked()",
    "scores": 'return np.log(kept["scored"])',
    "measured": "return batch.measured",
    "inspected": "return weights.inspected",
    "made": "self.made",
    "selects": "return scores.selected",
    "builds": "return selection.built",
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "tiny.yaml").write_text(SUITE.replace("[bible, wiki]\nm", "[wiki]\nm"))
    (tmp_path / "broken.py").write_text(PLUGIN)
    return tmp_path


def words(*methods):
    chosen = [f"--method={name}" for name in methods]
    return ["run", "tiny.yaml", "--plugin", "broken.py", "--retain=0.5", "--limit=2", *chosen]


def test_every_failure_of_a_plugin_has_its_own_line_in_the_traceback(folder):
    done = call("--debug", *words(*FAILING), cwd=folder, store=folder / "s")
    assert done.returncode == 3
    for line in (*FAILING.values(), "return results.panelled"):
        assert f"    {line}\n" in done.stderr, line
    plain = call(*words(*FAILING), cwd=folder, store=folder / "s")
    assert "Traceback" not in plain.stderr
    for name in FAILING:
        assert f"50 % pruned, {name}" in plain.stderr


def test_a_plugin_that_cannot_be_loaded_shows_where(folder):
    (folder / "broken.py").write_text("import mbench\nx = 1 / (1 - 1)\n")
    done = call("plugins", "--plugin", "broken.py", "--debug", cwd=folder, store=folder / "s")
    assert "    x = 1 / (1 - 1)\n" in done.stderr


def test_without_a_terminal_there_is_no_debugger(folder):
    done = call("--pdb", *words("scores"), cwd=folder, store=folder / "s")
    assert done.returncode == 2
    assert done.stderr == (
        "error: --pdb asks at a terminal, and there is none; --debug shows tracebacks\n"
    )


def test_at_a_terminal_the_debugger_stops_in_the_plugins_frame_once(folder):
    """With a suite that asks for worker processes, which could not be asked anything."""
    (folder / "broken.py").write_text(PLUGIN.replace("results.panelled", "[]"))
    command = [sys.executable, "-m", "mbench", *words("scores"), "--retain=0.25", "--pdb"]
    command += ["--set=processes=2", "--quiet", "--store", str(folder / "s")]
    ours, theirs = pty.openpty()
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=folder) as run:
        os.close(theirs)
        try:
            shown = answered(ours, b"(Pdb) ", b"p sorted(kept)\n")
            assert 'return np.log(kept["scored"])' in shown
            shown = answered(ours, b"(Pdb) ", b"q\n")
            assert "['count', 'gate'" in shown
            assert "(Pdb)" not in answered(ours, b"(Pdb) ", b"q\n")
        finally:
            os.close(ours)  # which ends it, should it still ask
    assert run.returncode == 3


def answered(terminal, until, answer):
    """What is shown up to a prompt, which is answered, or to the end."""
    shown = b""
    while until not in shown:
        ready, _, _ = select.select([terminal], [], [], LONG)
        try:
            part = os.read(terminal, 4096) if ready else b""
        except OSError:  # the other end is closed
            part = b""
        if not part:
            return shown.decode(errors="replace")
        shown += part
    os.write(terminal, answer)
    return shown.decode(errors="replace")
