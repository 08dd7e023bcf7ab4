"""Commands of mbench in processes of their own, which begin with all libraries imported.

A process of Python takes seconds to import torch and what is around it. These are forked from one
that has done so; they get signals, are killed and end as any other.
"""

from __future__ import annotations

import functools
import json
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
import weakref
from collections.abc import Callable, Mapping
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any
from unittest import mock

from helpers.command import Finished
from helpers.held import LONG, WAITING

LIBRARIES = [
    *("torch", "transformers", "datasets", "pandas", "lm_eval.tasks"),
    *("mbench.cli.run", "mbench.cli.worker", "mbench.run.runner", "mbench.report.publish"),
    *("mbench.evaluate.lm_eval.prepared_task", "mbench.evaluate.perplexity"),
    *("mbench.moe.load", "mbench.moe.profile"),
    "s3fs",
]


@functools.cache
def _context() -> ForkServerContext:
    """With a process to fork from, in which no other thread runs."""
    from multiprocessing import forkserver

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(LIBRARIES)
    with mock.patch.dict(os.environ, OMP_NUM_THREADS="1"):
        forkserver.ensure_running()
    return context


def forked(work: Callable[..., object], *arguments: object) -> BaseProcess:
    """A process that will do some work, which has to be a function of a module in `helpers`."""
    return _context().Process(target=work, args=arguments)


class Forked:
    """A command that runs; `returncode` is minus the signal that ended it."""

    def __init__(
        self,
        *words: str,
        cwd: Path,
        store: Path | str,
        session: bool = False,
        environment: Mapping[str, str] | None = None,
        first: Callable[[], object] = bool,
    ) -> None:
        """Start it, in a session of its own if asked for; it calls `first` before all else."""
        self._cwd = cwd
        folder = tempfile.mkdtemp()
        weakref.finalize(self, shutil.rmtree, folder)
        self._output = [Path(folder) / name for name in ("out", "err")]
        for path in self._output:
            path.touch()
        whole = {**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})}
        whole["MBENCH_STORE"] = str(store)
        self._process = forked(_run, words, cwd, whole, self._output, session, first)
        self._process.start()
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def events(self, kind: str) -> list[dict[str, Any]]:
        """Those of a kind by now, where it speaks JSON."""
        lines = self._output[0].read_text().split("\n")[:-1]
        return [event for event in map(json.loads, lines) if event["event"] == kind]

    def kill(self) -> None:
        self._process.kill()

    def wait(self) -> int:
        """The exit status."""
        self._process.join(LONG)
        assert self.returncode is not None, f"still running after {LONG} s"
        return self.returncode

    def ended(self) -> Finished:
        """What a user sees of it once it has ended."""
        self.wait()
        return Finished(self.returncode, *(path.read_text() for path in self._output))

    def wait_until_held(self) -> None:
        """Until it has come to a place of `helpers.held`."""
        self.wait_until((self._cwd / WAITING).exists, "wait of its")

    def wait_for_line(self, line: str) -> None:
        """Until it says so on its standard error."""
        self.wait_until(
            lambda: line in self._output[1].read_text(errors="replace").splitlines(),
            f"line {line!r}",
        )

    def wait_until(self, said: Callable[[], object], what: str) -> None:
        """Until something is true, which has to be before it has ended, or by then."""
        until = time.monotonic() + LONG
        while time.monotonic() < until:
            over = self.returncode is not None
            if said():
                return
            if over:
                break
            time.sleep(0.02)
        said = "\n".join(path.read_text(errors="replace") for path in self._output)
        raise AssertionError(f"no {what}; exit status {self.returncode}\n{said}")


def _run(
    words: tuple[str, ...],
    cwd: Path,
    environment: Mapping[str, str],
    output: list[Path],
    session: bool,
    first: Callable[[], object],
) -> None:
    if session:
        os.setsid()
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    for number, path in enumerate(output, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND), number)
    sys.argv = ["mbench", *words]

    import fsspec.config

    from mbench.__main__ import main

    # Read by its import otherwise.
    fsspec.config.set_conf_env(fsspec.config.conf)
    first()
    main()
