"""Workers started as jobs of a cluster by submitit, and waited for."""

from __future__ import annotations

import contextlib
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mbench.api.request import Request
from mbench.core.errors import SOME_FAILED, MbenchError, SuiteError, one_line
from mbench.core.interruption import stop_if_asked

LOOKS = 2.0
"""Seconds between two looks at what jobs do."""


def options_of(given: Sequence[str]) -> dict[str, Any]:
    """`key=value` pairs as submitit takes them, numbers as numbers; raises `SuiteError`."""
    options: dict[str, Any] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise SuiteError(f"--launcher-option {text}: expected KEY=VALUE, e.g. timeout_min=60")
        options[key] = int(value) if value.isdigit() else value
    return options


def launch(
    asked: Request,
    workers: int,
    options: Mapping[str, Any],
    folder: Path,
    tell: Callable[[str], object],
    warn: Callable[[str], object],
) -> None:
    """Have so many workers do the suite's work, and return when all have ended.

    Args:
        asked: the suite as it is asked for.
        workers: jobs.
        options: of submitit: `cluster`, and what its executor takes, e.g. `slurm_partition`.
        folder: where submitit keeps what it says of its jobs; all machines must see it.
        tell: is told what was started.
        warn: is told of workers that did not do their share.

    Raises:
        SuiteError: submitit is not installed, or does not know an option.
        MbenchError: no worker did its share.
        KeyboardInterrupt: jobs are cancelled then.
    """
    try:
        import submitit
    except ImportError:
        raise SuiteError(
            "--launcher submitit needs it, and it is not installed: pip install 'mbench[submitit]'"
        ) from None
    asked.plan.registry.refuse_given("worker")
    parameters = dict(options)
    try:
        executor = submitit.AutoExecutor(folder=folder, cluster=parameters.pop("cluster", None))
        executor.update_parameters(**parameters)
    except (NameError, TypeError, ValueError, RuntimeError) as error:
        raise SuiteError(f"--launcher-option: {one_line(error)}") from None
    with executor.batch():
        jobs = [executor.submit(_work, words) for words in _commands(asked, workers)]
    who = "a worker is a job" if workers == 1 else f"{workers} workers are jobs"
    tell(f"{who} of {executor.cluster}; what they say is in {folder}")
    try:
        _wait(jobs)
    except BaseException:
        for job in jobs:
            with contextlib.suppress(Exception):
                job.cancel()
        raise
    ends = [_end(job) for job in jobs]
    idle = [end for end in ends if not end.worked]
    if len(idle) == len(jobs):
        raise MbenchError(
            f"no worker did its share: {idle[0].where}: {idle[0].said}; logs in {folder}"
        )
    for said in dict.fromkeys(end.said for end in ends if end.said):
        alike = [end for end in ends if end.said == said]
        who = "a worker" if len(alike) == 1 else f"{len(alike)} workers"
        did = "could not do all" if alike[0].worked else "ended early, others did its share"
        warn(f"{who} {did}: {', '.join(end.where for end in alike)}: {said}")


def _commands(asked: Request, workers: int) -> list[list[str]]:
    plugins = [word for file in asked.registry.files for word in ("--plugin", str(file))]
    same = [*asked.changes, *plugins, "--store", str(asked.store.root), "--quiet"]
    python = [sys.executable, "-m", "mbench", "worker", str(asked.path), *same]
    return [[*python, "--shard", f"{number}/{workers}"] for number in range(1, workers + 1)]


@dataclass(frozen=True)
class _End:
    """How a worker ended."""

    where: str
    worked: bool
    """Whether it did what it could of its share."""
    said: str
    """Why it did not do all; empty where it did."""


def _work(words: Sequence[str]) -> tuple[int, str, str]:
    """On the machine of a job: exit status, the last line of what was said, and the machine."""
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    print(done.stdout, done.stderr, sep="\n")
    return done.returncode, (done.stderr.strip().splitlines() or [""])[-1], platform.node()


def _wait(jobs: Sequence[Any]) -> None:
    while not all(job.done() for job in jobs):
        stop_if_asked()
        time.sleep(LOOKS)


def _end(job: Any) -> _End:
    where = f"job {job.job_id}"
    try:
        status, said, machine = job.result()
    # A job may end in as many ways as there are clusters.
    except Exception as error:
        return _End(where, False, one_line(error))
    worked = status in (0, SOME_FAILED)
    return _End(f"{where} on {machine}", worked, said if status else "")
