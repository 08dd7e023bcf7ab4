"""`mbench report` with several directories, or with another format than a page."""

from __future__ import annotations

import shutil

import pytest
from click.testing import CliRunner

from helpers.small_runs import change, grid, run, with_items
from mbench.cli import group
from mbench.core.errors import MergeError, StoreError
from mbench.report.statistics.boards import boards
from mbench.report.tables_for_papers import to_latex, to_markdown
from mbench.storage.results_folder import load_results, read, write


@pytest.fixture
def halves(tmp_path):
    """Two runs that share the unpruned model and random pruning."""
    for name, methods in (("a", ("random", "alpha")), ("b", ("random", "beta"))):
        write(run(grid(methods=methods), name=name), tmp_path / name)
    return tmp_path


def call(*words):
    return CliRunner().invoke(group, ["report", *map(str, words)], catch_exceptions=False)


def test_several_directories_become_one_report(halves):
    done = call(halves / "a", halves / "b")
    assert done.stdout == f"{halves / 'a+b' / 'index.html'}\n"
    table = load_results(halves / "a+b")
    whole = run(grid())
    assert len(table) == len(
        {(r.method, r.seed, r.retain, r.task, r.metric) for r in table.itertuples()}
    )
    assert set(table["method"]) == {"none", "random", "alpha", "beta"}
    assert {(c.method, c.seed, c.retain) for c in read(halves / "a+b").cells} == {
        (c.method, c.seed, c.retain) for c in whole.cells
    }
    assert '<a href="a%2Bb/index.html">' in (halves / "index.html").read_text()
    call(halves / "a", halves / "b", "--output", halves / "else" / "where")
    assert (halves / "else" / "where" / "results.csv").is_file()


@pytest.mark.parametrize("given", ["runs/firts", "firts", "runs"])
def test_a_mistyped_directory_is_answered_with_the_one_that_was_meant(tmp_path, monkeypatch, given):
    for name in ("first", "other"):
        write(run(grid()), tmp_path / "runs" / name)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreError, match=r"\.json is missing; did you mean 'runs/first'\?"):
        call(given)


def test_another_protocol_is_refused_and_nothing_is_written(halves):
    other = change(read(halves / "b"), ("corpora", "wiki", "length"), 128)
    write(other, halves / "b")
    with pytest.raises(MergeError, match=r"corpus wiki › length: 64 in .*a; 128 in .*b"):
        call(halves / "a", halves / "b")
    assert sorted(path.name for path in halves.iterdir()) == ["a", "b"]


def test_the_preferred_directory_settles_contradictions(halves):
    worse = with_items(read(halves / "b"), "quiz", lambda t: t.assign(acc=0.0))
    write(worse, halves / "b")
    with pytest.raises(MergeError, match="m unpruned, quiz: acc "):
        call(halves / "a", halves / "b")
    done = call(halves / "a", halves / "b", "--prefer", halves / "b")
    assert done.exit_code == 0
    table = load_results(halves / "a+b").query("task == 'quiz'").groupby("method")["value"].max()
    assert table["none"] == table["random"] == 0.0
    assert table["alpha"] > 0


@pytest.mark.parametrize(("form", "function"), [("latex", to_latex), ("markdown", to_markdown)])
def test_tables_are_printed_and_written(halves, form, function):
    done = call(halves / "a", "--format", form)
    expected = run(grid(methods=("random", "alpha")), name="a")
    assert done.stdout == function(boards(expected))
    assert sorted(path.name for path in halves.iterdir()) == ["a", "b"]
    call(halves / "a")
    name = {"latex": "tables.tex", "markdown": "tables.md"}[form]
    assert (halves / "a" / name).read_text() == done.stdout


def test_merging_never_writes_onto_its_runs(halves):
    twin = halves / "elsewhere" / "a"
    shutil.copytree(halves / "a", twin)
    done = CliRunner().invoke(
        group, ["report", str(halves / "a"), str(twin), "--output", str(halves / "a")]
    )
    assert done.exit_code == 2
    assert "is one of the runs: choose another --output" in done.output
    assert call(halves / "a", twin).exit_code == 0
    assert (halves / "a+a" / "index.html").exists()


def test_options_of_merging_need_several_directories(halves):
    for words in (["--output", "x"], ["--prefer", halves / "a"]):
        done = CliRunner().invoke(group, ["report", str(halves / "a"), *map(str, words)])
        assert done.exit_code == 2
        assert "for merging several directories" in done.output
    done = CliRunner().invoke(
        group, ["report", str(halves / "a"), str(halves / "b"), "--prefer", "elsewhere"]
    )
    assert "is not one of the directories" in done.output
