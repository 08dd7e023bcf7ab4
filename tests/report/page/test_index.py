"""The index lists every result directory, names the broken ones, and never fails a report."""

from __future__ import annotations

import html
import json
import os
import re

import pytest

from helpers.demo_results import synthetic
from helpers.small_runs import grid, results, run
from mbench.core.errors import StoreError
from mbench.report.page.index import MARK, to_json, write_index
from mbench.report.publish import publish
from mbench.report.statistics.answers import answers
from mbench.report.statistics.boards import boards
from mbench.storage.report_folder import VERDICT
from mbench.storage.results_folder import read, write

HOSTILE = "<img src=x onerror=alert(1)>"


def put(folder, name, made):
    write(made, folder / name)
    return publish(made, folder / name)


def rows(page):
    """Text of each row of the index."""
    text = page.read_text()
    found = re.findall(r"<tr>\n(.*?)</tr>", text.partition("<tbody>")[2], re.S)
    return [" ".join(re.sub(r"<[^>]*>", " ", row).split()) for row in found]


def test_every_directory_is_listed_with_what_is_best(tmp_path):
    put(tmp_path, "b", synthetic())
    put(tmp_path, "a", run(grid(models=("m", "n")), name="other"))
    os.utime(tmp_path / "a" / "results.json", (0, 0))
    first, second = rows(write_index(tmp_path))
    assert first.startswith("The other a, suite other m, n 1970-01-01 00:00 ")
    assert re.search(r"(\d+) of \1 evaluations ok", first)
    assert "75 % pruned of m : " in first
    assert "75 % pruned of n : " in first
    best = answers(boards(synthetic()).groups[0].boards[1].ranking)[0]
    assert f"50 % pruned : {best.chip} ({best.note})" in second
    assert re.search(r"\d+ of \d+ evaluations ok, \d+ blocked, \d+ failed, 1 interrupted", second)
    assert '<a href="b/index.html">' in (tmp_path / "index.html").read_text()


def test_reports_of_a_folder_within_are_listed_and_kept_up_to_date(tmp_path):
    put(tmp_path, "own", run(grid()))
    assert len(rows(tmp_path / "index.html")) == 1
    put(tmp_path / "mine", "narrowed", run(grid()))
    assert len(rows(tmp_path / "mine" / "index.html")) == 1
    assert len(rows(tmp_path / "index.html")) == 2
    assert '<a href="mine/narrowed/index.html">' in (tmp_path / "index.html").read_text()
    (tmp_path / "mine" / "index.html").write_text("my own page")
    assert len(rows(write_index(tmp_path))) == 1


def test_the_verdict_file_is_that_of_the_page(tmp_path):
    published = put(tmp_path, "run", synthetic())
    found = json.loads((tmp_path / "run" / VERDICT).read_text())
    assert found == to_json(boards(synthetic()))
    page = html.unescape(published.page.read_text())
    answered = [own for budget in found["budgets"] for own in budget["answers"]]
    assert len(answered) == 9
    for own in answered:
        assert own["answer"] in page
        assert own["why"] in page


@pytest.mark.parametrize(
    ("breakage", "reason"),
    [
        (lambda d: (d / VERDICT).unlink(), "verdict.json is missing"),
        (lambda d: (d / "results.json").unlink(), "results.json: No such file or directory"),
        (lambda d: (d / "results.json").write_text("{"), "JSONDecodeError"),
        (lambda d: (d / VERDICT).write_text("[]"), "TypeError"),
        (lambda d: (d / VERDICT).write_bytes(b"\xff"), "UnicodeDecodeError"),
    ],
)
def test_a_broken_directory_is_named_and_the_others_are_listed(tmp_path, breakage, reason):
    put(tmp_path, "bad", run(grid()))
    put(tmp_path, "good", run(grid()))
    (tmp_path / "no results").mkdir()
    breakage(tmp_path / "bad")
    bad, good = rows(write_index(tmp_path))
    assert bad.startswith("bad bad cannot be listed : ")
    assert reason in bad
    assert "evaluations ok" in good


def test_hostile_names_are_text(tmp_path):
    made = results(list(run(grid()).cells), name=HOSTILE)
    put(tmp_path, "50% #1 <b>?", made)
    text = (tmp_path / "index.html").read_text()
    assert HOSTILE not in text
    assert "<b>?" not in text
    assert 'href="50%25%20%231%20%3Cb%3E%3F/index.html"' in text


def test_a_page_that_is_no_index_is_left_alone(tmp_path):
    (tmp_path / "index.html").write_text("my own page")
    with pytest.raises(StoreError, match="is not an index of reports: left as it is"):
        write_index(tmp_path)
    published = put(tmp_path, "run", run(grid()))
    assert published.page.is_file()
    assert published.warnings == (
        f"no index of reports: {tmp_path / 'index.html'} is not an index of reports: left as it is",
    )
    assert (tmp_path / "index.html").read_text() == "my own page"


def test_an_index_cannot_fail_a_report(tmp_path, monkeypatch):
    def full(*_):
        raise RuntimeError("anything")

    monkeypatch.setattr("mbench.report.publish.write_index", full)
    published = put(tmp_path, "run", run(grid()))
    assert published.warnings == ("no index of reports: anything",)
    assert read(tmp_path / "run") == run(grid())


def test_an_empty_folder_has_an_index(tmp_path):
    assert MARK in write_index(tmp_path).read_text()
