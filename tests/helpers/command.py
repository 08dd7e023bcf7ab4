"""The command line: within the test's process, or in one of its own."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from helpers.held import LONG
from helpers.places import ROOT
from mbench.cli import main


@dataclass(frozen=True)
class Finished:
    """What a user sees of a command."""

    returncode: int
    stdout: str
    stderr: str


def call(*words: str, cwd: Path = ROOT, store: Path) -> Finished:
    """Run a command in this process, where torch is imported once for all commands."""
    stdout, stderr = io.StringIO(), io.StringIO()
    with (
        contextlib.chdir(cwd),
        mock.patch.dict(os.environ, MBENCH_STORE=str(store)),
        mock.patch.object(sys, "argv", ["mbench", *words]),
        mock.patch.object(sys, "path", [*sys.path]),
        _levels_of_loggers_kept(),
        contextlib.redirect_stdout(stdout),
        contextlib.redirect_stderr(stderr),
    ):
        try:
            main()
        except SystemExit as end:
            return Finished(end.code or 0, stdout.getvalue(), stderr.getvalue())
    raise AssertionError("mbench ended without an exit status")


def call_apart(*words: str, cwd: Path = ROOT, store: Path) -> Finished:
    """Run a command as a user does, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "mbench", *words],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1", "MBENCH_STORE": str(store)},
        capture_output=True,
        text=True,
        timeout=LONG,
    )
    return Finished(done.returncode, done.stdout, done.stderr)


@contextlib.contextmanager
def _levels_of_loggers_kept():
    loggers = [
        each for each in logging.Logger.manager.loggerDict.values() if hasattr(each, "level")
    ]
    levels = [each.level for each in loggers]
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
