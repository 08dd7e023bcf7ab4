"""A shell completes verbs, options, and the names that suites and plugins have."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from helpers.command import call
from helpers.places import ROOT
from helpers.tiny_suite import SUITE


def completed(*words, cwd=ROOT):
    """What bash is offered for the last word."""
    asked = {"_MBENCH_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(("mbench", *words))}
    done = subprocess.run(
        [sys.executable, "-m", "mbench"],
        env={**os.environ, **asked, "COMP_CWORD": str(len(words))},
        cwd=cwd,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("sc",), ["plain,scores", "plain,schema"]),
        (("run", "quickst"), ["plain,quickstart"]),
        (("run", "own"), ["file,own"]),
        (("run", "own.yaml", "--meth"), ["plain,--method"]),
        (("run", "own.yaml", "--method", "same"), ["plain,same-as-reap"]),
        (("scores", "own.yaml", "tb-"), ["plain,tb-coverage"]),
        (("plan", "own.yaml", "--text", "ppl"), ["plain,ppl-wiki"]),
        (("plan", "missing.yaml", "--text", "ppl"), []),
    ],
)
def test_names_are_offered(words, offered, tmp_path):
    (tmp_path / "own.yaml").write_text(SUITE)
    assert completed(*words, cwd=tmp_path) == offered


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_a_shell_asks_mbench(shell, tmp_path):
    done = call("completion", shell, store=tmp_path)
    assert done.returncode == 0
    assert f"_MBENCH_COMPLETE={shell}_complete" in done.stdout
