"""A run that finds everything done leaves its report alone, unless anything about it changed."""

from __future__ import annotations

import os
import shutil

import pytest

from helpers.command import call
from helpers.tiny_suite import SUITE

UNCHANGED = "nothing has changed"


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("done")
    (folder / "tiny.yaml").write_text(SUITE)
    first = call("run", "tiny.yaml", cwd=folder, store=folder / "s")
    assert first.returncode == 0, first.stderr
    assert UNCHANGED not in first.stderr
    return folder


def again(folder, *options):
    """Run once more; returns what was printed, and whether the report was written."""
    page = folder / "reports" / "tiny" / "index.html"
    before = page.stat().st_ino if page.exists() else None
    run = call("run", "tiny.yaml", *options, cwd=folder, store=folder / "s")
    assert run.returncode == 0, run.stderr
    assert page.exists()
    written = page.stat().st_ino != before
    assert written == (UNCHANGED not in run.stderr)
    return written


def test_what_has_not_changed_is_not_written_again(done):
    report = done / "reports" / "tiny"
    before = {path: path.read_bytes() for path in report.rglob("*") if path.is_file()}
    assert not again(done)
    assert {path: path.read_bytes() for path in report.rglob("*") if path.is_file()} == before
    # What did no work says so, and keeps the record of the run that did.
    assert b'"forward_tokens": 0' not in before[report / "results.json"]


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "reports/tiny/results.csv").unlink(),
        lambda folder: (folder / "reports/tiny/index.html").write_text("edited"),
        lambda folder: shutil.rmtree(folder / "reports/tiny/items"),
        lambda folder: os.utime(next((folder / "s/evaluations").glob("*.parquet"))),
        lambda folder: next((folder / "s/evaluations").glob("*.parquet")).unlink(),
        lambda folder: (folder / "tiny.yaml").write_text(SUITE + "description: other\n"),
    ],
    ids=["removed", "edited", "items", "stored anew", "computed anew", "suite"],
)
def test_a_change_of_anything_writes_it_again_once(done, change):
    again(done)
    change(done)
    assert again(done)
    assert not again(done)


def test_another_command_writes_its_own_report(done):
    again(done)
    assert again(done, "--retain", "0.5")
    assert not again(done, "--retain", "0.5")
    assert again(done)
