"""SIGTERM and SIGHUP end a run as Ctrl-C does, in whatever it is doing, and nothing outlives it."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress

import pytest

from helpers.forked import Forked
from helpers.held import GO_ON, LONG, after_one_evaluation
from helpers.tiny_suite import SUITE
from mbench import cli
from mbench.core import interruption
from mbench.storage.results_folder import read

CONTINUE = "interrupted; run the same command again to continue"
ANSWER = "the report is being written; once more to end without it"

SLOW_PANEL = """
import os, pathlib, time
import mbench

@mbench.hookimpl
def mbench_panels(results):
    pathlib.Path("writing").touch()
    while not os.path.exists("go on"):
        time.sleep(0.05)
    return [mbench.Panel("Slow", "done")]
"""

HELD = """
import time
from mbench.run.evaluation_stage import EvaluationStage

def wait_for_the_signal(stage, masked, task):
    while True:
        time.sleep(0.05)

EvaluationStage.run_task = wait_for_the_signal
"""


@pytest.fixture(autouse=True)
def _hang_up_is_heard():
    """What runs the tests may be without a terminal, under nohup; later tests heed no signal."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)
    with interruption.watched():
        pass  # forgets the signals that this process was sent


@contextmanager
def from_nothing(folder, *words, verb="run"):
    """A run as a user starts it, in a session whose processes are all gone at the end."""
    (folder / "tiny.yaml").write_text(SUITE + "processes: 2\n")
    process = subprocess.Popen(
        [sys.executable, "-m", "mbench", verb, "tiny.yaml", *words],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "MBENCH_STORE": str(folder / "store")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@contextmanager
def started(folder, *words, first=bool):
    """A run that has imported all it needs, in a session whose processes are gone at the end."""
    (folder / "tiny.yaml").write_text(SUITE + "processes: 2\n")
    words, store = ("run", "tiny.yaml", *words), folder / "store"
    process = Forked(*words, cwd=folder, store=store, session=True, first=first)
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def ended(process):
    """(Status, lines of standard error); no process of its session may be left."""
    if isinstance(process, Forked):
        errors = process.ended().stderr
    else:
        _, errors = process.communicate(timeout=LONG)
    assert "Traceback" not in errors
    assert_nothing_left(process)
    return process.returncode, errors.splitlines()


def assert_nothing_left(process):
    deadline = time.monotonic() + LONG
    while time.monotonic() < deadline:
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    raise AssertionError("a process outlived its run")


def wait_for_file(path):
    deadline = time.monotonic() + LONG
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_during_evaluation_leaves_a_report_and_helpers_end(tmp_path, number):
    with started(tmp_path, "--json", first=after_one_evaluation) as process:
        process.wait_until_held()
        process.send_signal(number)
        status, lines = ended(process)
    assert status == 128 + number
    assert lines[-1] == CONTINUE
    results = read(tmp_path / "reports" / "tiny")
    statuses = {cell.task_status(task).status for cell in results.cells for task in ("ppl-wiki",)}
    assert statuses == {"ok", "interrupted"}
    assert results.provenance.runs[0].cost.interrupted


def test_one_signal_while_the_report_is_written_is_answered_and_a_second_ends_it(tmp_path):
    (tmp_path / "slow.py").write_text(SLOW_PANEL)
    with started(tmp_path, "--plugin", "slow.py", "--limit", "2") as process:
        wait_for_file(tmp_path / "writing")
        process.send_signal(signal.SIGTERM)
        process.wait_for_line(ANSWER)
        (tmp_path / GO_ON).touch()
        status, lines = ended(process)
    assert status == 0
    assert ANSWER in lines
    page = (tmp_path / "reports" / "tiny" / "index.html").read_bytes()

    (tmp_path / GO_ON).unlink()
    (tmp_path / "writing").unlink()
    words = ("--plugin", "slow.py", "--limit", "2", "--retain", "0.5")
    with started(tmp_path, *words) as process:
        wait_for_file(tmp_path / "writing")
        process.send_signal(signal.SIGTERM)
        process.wait_for_line(ANSWER)
        time.sleep(1.2)  # sooner it would be the same wish
        process.send_signal(signal.SIGHUP)
        status, lines = ended(process)
    assert status == 128 + signal.SIGTERM
    assert lines[-1] == CONTINUE
    assert (tmp_path / "reports" / "tiny" / "index.html").read_bytes() == page
    assert not [path for path in (tmp_path / "reports").iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("seconds", [0.1, 0.7, 1.5, 3.0])
def test_a_signal_at_any_moment_is_at_most_one_line(tmp_path, seconds):
    (tmp_path / "held.py").write_text(HELD)
    with from_nothing(tmp_path, "--plugin", "held.py") as process:
        time.sleep(seconds)
        process.send_signal(signal.SIGTERM)
        status, lines = ended(process)
    # Until the command line is loaded, the signal itself ends the process.
    assert status in (-signal.SIGTERM, 128 + signal.SIGTERM)
    assert lines[-1:] == ([CONTINUE] if status > 0 else [])


@pytest.mark.parametrize("told_before", [False, True])
def test_a_signal_before_and_after_the_command_itself_is_one_line(monkeypatch, capfd, told_before):
    def command():
        if told_before:
            cli.tell_interrupted()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)

    monkeypatch.setattr(cli, "_status", command)
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 128 + signal.SIGTERM
    assert capfd.readouterr().err.splitlines() == [CONTINUE]


@pytest.mark.parametrize(("package", "ends"), [("torch", 1), ("another", 0)])
def test_a_signal_while_torch_is_imported_waits_for_its_end(package, ends):
    module = "import os, signal; os.kill(os.getpid(), signal.SIGTERM); sleep(0.2); loaded.append(1)"
    loaded = []

    def imported():
        exec(module, {"__name__": f"{package}.part", "sleep": time.sleep, "loaded": loaded})
        time.sleep(10)

    with pytest.raises(interruption.Interrupted), interruption.watched():
        imported()
    assert len(loaded) == ends


@pytest.mark.long
def test_signals_at_random_moments_lose_nothing(tmp_path):
    generator = random.Random(1)
    ends = set()
    for _ in range(60):
        number = generator.choice([signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
        with from_nothing(tmp_path) as process, suppress(subprocess.TimeoutExpired):
            process.wait(generator.uniform(0, 12))
        # Leaving the block has killed what was still running; the same again, but asked to end.
        with from_nothing(tmp_path) as process:
            time.sleep(generator.uniform(0, 12))
            process.send_signal(number)
            status, lines = ended(process)
        ends.add(status)
        if status in (143, 129):
            assert lines[-1] == CONTINUE
        if (tmp_path / "reports" / "tiny").exists():
            read(tmp_path / "reports" / "tiny")
    assert len(ends) > 2
    with from_nothing(tmp_path) as process:
        assert ended(process)[0] == 0


def test_a_signal_that_is_ignored_already_stays_ignored(tmp_path):
    (tmp_path / "sent.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGHUP)\n")
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with from_nothing(tmp_path, "--plugin", "sent.py", verb="plan") as process:
            assert ended(process)[0] == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_workers_end_with_a_run_that_is_killed(tmp_path):
    with started(tmp_path, "--json", first=after_one_evaluation) as process:
        process.wait_until_held()
        process.kill()
        process.wait()
        assert_nothing_left(process)
