"""A report is replaced as a whole: whenever a process dies, the files are those of one run."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import resource
import shutil
import signal
import subprocess
import sys

import pytest

from helpers.small_runs import grid, run
from mbench.core.errors import StoreError
from mbench.report.publish import publish
from mbench.storage import report_folder
from mbench.storage import results_folder as results
from mbench.storage.report_folder import check_replaceable, replacing

OURS = ("results.json", "items.parquet", "index.html", "efficiency.csv")


def write(place, run, names=OURS):
    with replacing(place, OURS) as replacement:
        for name in names:
            (replacement.folder / name).write_text(run)
    return replacement


def found(place):
    """What a reader finds: the run of each file of ours."""
    return {path.name: path.read_text() for path in place.iterdir() if path.name in OURS}


def hidden(place):
    return [path.name for path in place.parent.iterdir() if path.name.startswith(".")]


@pytest.fixture
def place(tmp_path):
    """The report of run A, which has a file that run B has not, and files of the user."""
    place = tmp_path / "reports" / "tiny"
    write(place, "A")
    (place / "notes.txt").write_text("mine")
    (place / "export" / "deep").mkdir(parents=True)
    (place / "export" / "deep" / "weights").write_text("large")
    (place / "export" / "latest").symlink_to("deep/weights")
    place.chmod(0o751)
    return place


RUN_B = OURS[:3]


def assert_kept(place):
    assert (place / "notes.txt").read_text() == "mine"
    assert (place / "export" / "latest").read_text() == "large"
    assert place.stat().st_mode & 0o777 == 0o751


def test_the_new_files_are_there_and_the_users_stay(place):
    inode = (place / "export" / "deep" / "weights").stat().st_ino
    assert not write(place, "B", RUN_B).one_by_one
    assert found(place) == dict.fromkeys(RUN_B, "B")
    assert_kept(place)
    assert (place / "export" / "deep" / "weights").stat().st_ino == inode
    assert hidden(place) == []


def dies_at(number, work):
    """Do it in a process that is killed at its file operation `number`; False if it ends."""
    process = os.fork()
    if process == 0:
        count = 0

        def audit(event, arguments):
            nonlocal count
            code = event == "open" and str(arguments[0]).endswith((".py", ".pyc"))
            if not code and event.startswith(("open", "os.", "shutil.", "ctypes.", "subprocess.")):
                count += 1
                if count == number:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(audit)
        try:
            work()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(process, 0)[1])


@pytest.mark.parametrize("exchange", [True, False], ids=["at once", "in two steps"])
def test_a_kill_at_any_file_operation_leaves_one_run(place, tmp_path, monkeypatch, exchange):
    if not exchange:
        monkeypatch.setattr(report_folder.ctypes, "CDLL", lambda *_words, **_named: object())
    runs = {"A": dict.fromkeys(OURS, "A"), "B": dict.fromkeys(RUN_B, "B")}
    seen = []
    number = 1
    while dies_at(number, lambda: write(place, "B", RUN_B)):
        if exchange:
            assert found(place) in runs.values(), number
            assert_kept(place)
        check_replaceable(place)  # as the next run does first
        assert found(place) in runs.values(), number
        assert_kept(place)
        assert hidden(place) == []
        seen.append(found(place))
        write(place, "A")
        number += 1
    assert number > 25
    # The exchange is one step: once B is there, it stays.
    first = seen.index(runs["B"])
    assert first > 10
    assert seen == [runs["A"]] * first + [runs["B"]] * (len(seen) - first)


@pytest.mark.long
@pytest.mark.parametrize("again", [False, True], ids=["another run", "rendered again"])
def test_a_kill_at_any_file_operation_of_a_whole_report(tmp_path, monkeypatch, again):
    # Charts that take no time.
    svg = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1"></svg>'
    (tmp_path / "vl_convert.py").write_text(f"def vegalite_to_svg(spec): return {svg!r}")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    place, kept = tmp_path / "reports" / "run", tmp_path / "kept"
    other = run(grid(seeds=(0, 1, 2), retains=(0.25,)))

    def publish_b():
        files = None if again else {"suite.lock": "B"}
        publish(run(grid()) if again else other, place, files=files)

    def state():
        return {path.name: path.read_bytes() for path in place.iterdir()}

    # In processes of their own, as each has its own compiler of charts.
    assert not dies_at(0, lambda: publish(run(grid()), place, files={"suite.lock": "A"}))
    (place / "index.html").write_text("the page of an older mbench")
    shutil.copytree(place, kept)
    runs = [state()]
    assert not dies_at(0, publish_b)
    runs.append(state())
    assert runs[0] != runs[1]
    number = 0
    while True:
        number += 1
        shutil.rmtree(place)
        shutil.copytree(kept, place)
        if not dies_at(number, publish_b):
            break
        found = state()
        assert found in runs, number
        check_replaceable(place)
        assert state() == found
        assert hidden(place) == []
    assert number > 60


def test_a_folder_that_another_process_fills_is_left_alone(place):
    with replacing(place, OURS) as ours:
        code = (
            "import sys, pathlib; from mbench.storage.report_folder import check_replaceable as c;"
            "c(pathlib.Path(sys.argv[1]))"
        )
        subprocess.run([sys.executable, "-c", code, str(place)], check=True)
        (ours.folder / "results.json").write_text("B")
    assert found(place) == {"results.json": "B"}


def test_an_error_and_a_full_disk_leave_the_old_report(place):
    with contextlib.suppress(ZeroDivisionError), replacing(place, OURS) as replacement:
        (replacement.folder / "results.json").write_text("B")
        raise ZeroDivisionError
    assert found(place) == dict.fromkeys(OURS, "A")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(StoreError, match=r"cannot write .*tiny: File too large"):
            write(place, "B" * 2000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert found(place) == dict.fromkeys(OURS, "A")
    assert hidden(place) == []
    assert_kept(place)


def test_links_and_the_working_directory(place, tmp_path, monkeypatch):
    link = tmp_path / "link"
    link.symlink_to(place)
    write(link, "B")
    assert link.is_symlink()
    assert found(place) == dict.fromkeys(OURS, "B")
    # Whoever works in the folder stays in it.
    monkeypatch.chdir(place)
    assert "working directory" in write(place, "C", RUN_B).one_by_one
    assert found(place) == dict.fromkeys(RUN_B, "C")
    assert os.path.samefile(".", place)
    assert_kept(place)
    assert sorted(path.name for path in place.iterdir() if path.name[0] == ".") == []


def test_where_a_folder_cannot_be_exchanged(place, monkeypatch):
    def refuse(*_words, **_named):
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    monkeypatch.setattr(report_folder.ctypes, "CDLL", lambda *_words, **_named: object())
    monkeypatch.setattr(os, "rename", refuse)
    assert write(place, "B", RUN_B).one_by_one == "Device or resource busy"
    assert found(place) == dict.fromkeys(RUN_B, "B")
    assert_kept(place)


def test_a_folder_of_the_user_named_like_a_file_is_refused(place):
    (place / "index.html").unlink()
    (place / "index.html").mkdir()
    with pytest.raises(StoreError, match=r"index\.html: Is a directory"):
        write(place, "B")
    (place / "index.html").rmdir()
    assert found(place) == dict.fromkeys(("results.json", "items.parquet", "efficiency.csv"), "A")


def test_a_full_disk_is_one_line_and_the_old_report_stays(tmp_path):
    results.write(run(grid()), tmp_path / "reports" / "run")
    report = functools.partial(
        subprocess.run,
        [sys.executable, "-m", "mbench", "report", "reports/run"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert report().returncode == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    # The tables fit, the page does not.
    limit = functools.partial(resource.setrlimit, resource.RLIMIT_FSIZE, (100_000, 100_000))
    done = report(preexec_fn=limit)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "error: cannot write reports/run/index.html: File too large\n"
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
