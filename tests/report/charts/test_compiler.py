"""Without its chart compiler, in whatever way it is missing, a report is written all the same."""

from __future__ import annotations

import functools
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time

import pytest

from helpers.held import LONG
from helpers.small_runs import grid, run
from mbench.report.charts import compiler
from mbench.report.charts.compiler import Compiler, NoPicture
from mbench.storage.results_folder import write

SPEC = {"data": {"values": [{"a": 1}]}, "mark": "point"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    write(run(grid()), folder / "reports" / "run")
    return folder


@pytest.fixture
def made():
    made = Compiler()
    yield made
    made.stop()


def report(folder, gigabytes):
    """(What `mbench report` prints, its page) with so many addresses for each process."""
    size = int(gigabytes * 2**30)
    done = subprocess.run(
        [sys.executable, "-m", "mbench", "report", "reports/run"],
        cwd=folder,
        capture_output=True,
        text=True,
        preexec_fn=functools.partial(resource.setrlimit, resource.RLIMIT_AS, (size, size)),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "reports/run/index.html\n"
    return done.stderr, (folder / "reports" / "run" / "index.html").read_text()


@pytest.mark.parametrize("gigabytes", [4, 20])
def test_with_few_addresses_a_page_without_pictures_comes_out(finished, gigabytes):
    said, page = report(finished, gigabytes)
    reason = f"reserves 64 GB of addresses, and `ulimit -v` allows {gigabytes} GB"
    assert len(said.splitlines()) == 1
    assert reason in said
    assert "<svg id" not in page
    # In place of each picture are the reason and what it would show, in words.
    places = re.findall(r"<figure>.*?</figure>", page, re.DOTALL)
    assert len(places) >= 2
    assert all(f"No picture: the chart compiler {reason}. " in place for place in places[:2])
    assert re.search(r"No picture: [^<]*50\N{NO-BREAK SPACE}% pruned", page)
    tables = sorted(path.name for path in (finished / "reports" / "run").iterdir())
    assert {"results.csv", "results.json", "tables.tex", "verdict.json"} <= set(tables)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise ImportError('no wheel here')", "ImportError: no wheel here"),
        ("import os; os.kill(os.getpid(), 11)", "the chart compiler was ended by SIGSEGV"),
        ("import os; os._exit(7)", "the chart compiler ended with status 7"),
        (
            # Ends later than its answers do, as on a busy machine.
            "import os, time; os.closerange(3, 99); time.sleep(2); os._exit(7)",
            "the chart compiler ended with status 7",
        ),
        ("import time; time.sleep(1000)", "the chart compiler gave no answer within 1 s"),
        ("print('not JSON')", "AttributeError: "),
    ],
)
def test_whatever_the_compiler_does_costs_the_picture(made, tmp_path, monkeypatch, code, reason):
    (tmp_path / "vl_convert.py").write_text(code)
    with monkeypatch.context() as patch:
        patch.setenv("PYTHONPATH", str(tmp_path))
        # Where it answers, it may start slowly.
        patch.setattr(compiler, "SECONDS", 1.0 if "within 1 s" in reason else LONG)
        made.start()
        start = time.monotonic()
        for _ in range(3):
            with pytest.raises(NoPicture, match=re.escape(reason)):
                made.compile(SPEC)
        assert time.monotonic() - start < LONG / 2
        assert reason in made.problem
    # The next page tries again.
    made.start(again=True)
    assert made.compile(SPEC).startswith("<svg")
    assert made.problem == ""


def test_one_chart_that_cannot_be_compiled_leaves_the_others(made):
    made.start()
    with pytest.raises(NoPicture):
        made.compile({"mark": 5})
    assert made.problem
    assert made.compile(SPEC).startswith("<svg")


def test_the_process_takes_no_signal_of_the_run_and_ends_with_it():
    code = (
        "import json, os, sys, time; from mbench.report.charts.compiler import Compiler;"
        f"made = Compiler(); made.start(); made.compile({json.dumps(SPEC)});"
        "print('ready', flush=True); sys.stdin.readline();"
        f"made.compile({json.dumps(SPEC)}); print('drawn', flush=True); time.sleep(1000)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout.readline() == "ready\n"
        children = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True
        ).stdout.split()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            for child in children:
                os.kill(int(child), number)
        process.stdin.write("go on\n")
        process.stdin.flush()
        assert process.stdout.readline() == "drawn\n"
        process.kill()
    deadline = time.monotonic() + LONG
    while any(os.path.exists(f"/proc/{child}") for child in children):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert children
