"""Paired differences, against a plain bootstrap, scipy, and cases whose answer is known."""

from __future__ import annotations

import dataclasses
import json

import pytest
from click.testing import CliRunner
from scipy import stats as scipy_stats
from small_runs import change, grid, items, run, with_items

from mbench.cli import group
from mbench.errors import MbenchError
from mbench.report.compare import compare
from mbench.results_files import write

ITEMS = 200


@pytest.fixture(scope="module")
def longer():
    """A run with enough items for the normal approximation."""
    whole = run(grid())
    for task in ("quiz", "ppl"):
        # The name follows from the mask.
        whole = with_items(
            whole, task, lambda t, task=task: items(task, str(t.iloc[:, 1].sum()), ITEMS)
        )
    return whole


def find(found, score, method, retain=0.5):
    (one,) = [
        c for c in found.found if (c.score, c.methods[0], c.retain) == (score, method, retain)
    ]
    return one


def test_a_run_compared_with_itself_differs_nowhere(longer):
    found = compare(("a", longer), ("a", longer))
    assert found.found
    assert {one.difference.value for one in found.found} == {0.0}
    assert not any(one.separated for one in found.found)
    assert {one.p for one in found.found} == {1.0}
    assert (found.settings, found.left) == ((), ())


def test_two_methods_against_scipy(longer):
    """The paired bootstrap's interval and p-value are those of a paired t-test, nearly."""
    found = compare(("a", longer), ("a", longer), ("alpha", "beta"))
    one = find(found, "quiz", "alpha")
    cells = {c.method: c for c in longer.cells if c.retain == 0.5}
    x, y = (cells[m].evaluations["quiz"].items["acc"].to_numpy() for m in ("alpha", "beta"))
    reference = scipy_stats.ttest_rel(y, x)
    interval = reference.confidence_interval(0.95)
    assert one.difference.value == pytest.approx((y - x).mean())
    assert one.difference.low == pytest.approx(interval.low, abs=0.012)
    assert one.difference.high == pytest.approx(interval.high, abs=0.012)
    assert one.values == (pytest.approx(x.mean()), pytest.approx(y.mean()))
    # Two budgets: the smaller p-value counts twice, the larger at least as much.
    raw = []
    for retain in {c.retain for c in longer.cells if c.method == "alpha"}:
        cells = {c.method: c for c in longer.cells if c.retain == retain}
        both = [cells[m].evaluations["quiz"].items["acc"] for m in ("alpha", "beta")]
        raw.append(scipy_stats.ttest_rel(*both).pvalue)
    least, most = sorted(raw)
    assert sorted(c.p for c in found.found if c.score == "quiz") == pytest.approx(
        [min(1, 2 * least), min(1, max(2 * least, most))], abs=0.05
    )


def test_seeds_of_one_method_are_compared_seed_by_seed(longer):
    """A shift that every seed shows is certain, however much the seeds differ."""
    worse = with_items(longer, "ppl", lambda t: t.assign(nll=t["nll"] + 0.01 * t["tokens"]))
    found = compare(("a", longer), ("b", worse))
    one = find(found, "Mean log perplexity", "random")
    assert one.seeds == (2, 2)
    assert one.difference.value == pytest.approx(0.01)
    assert (one.difference.low, one.difference.high) == (pytest.approx(0.01), pytest.approx(0.01))
    assert one.separated
    assert not one.higher


def test_only_items_that_both_have_count(longer):
    cut = longer
    for task in ("quiz", "ppl"):
        cut = with_items(cut, task, lambda t: t.iloc[50:][::-1].reset_index(drop=True))
    found = compare(("a", longer), ("b", cut), ("alpha", "beta"))
    one = find(found, "quiz", "alpha")
    cells = {c.method: c for c in longer.cells if c.retain == 0.5}
    x, y = (cells[m].evaluations["quiz"].items["acc"].to_numpy()[50:] for m in ("alpha", "beta"))
    assert one.items == ITEMS - 50
    assert one.difference.value == pytest.approx((y - x).mean())


def test_what_cannot_be_compared_is_named(longer):
    other = with_items(longer, "quiz", lambda t: t.assign(item="other " + t["item"]))
    other = with_items(other, "ppl", lambda t: t.assign(tokens=51))
    found = compare(("a", longer), ("b", other))
    assert found.found == ()
    assert found.left == (
        "m, ppl: the same windows hold other tokens",
        "m, quiz: the runs have no item in common",
    )
    retold = change(longer, ("texts", "ppl", "text"), {"documents": "other"})
    found = compare(("a", longer), ("b", retold))
    assert "m, ppl: the runs read different texts" in found.left
    assert found.settings == ("task ppl › text › documents: not set in a; other in b",)
    with pytest.raises(MbenchError, match=r"a has no method 'gamma' \(there: none, random"):
        compare(("a", longer), ("b", longer), ("gamma", "beta"))
    elsewhere = run(grid(models=("n",)))
    with pytest.raises(MbenchError, match="a and b have no model, budget and method in common"):
        compare(("a", longer), ("b", elsewhere))


def test_few_items_separate_nothing():
    whole = run(grid())
    small = with_items(whole, "quiz", lambda t: t.iloc[:5].assign(acc=0.0))
    better = with_items(whole, "quiz", lambda t: t.iloc[:5].assign(acc=1.0))
    found = compare(("a", small), ("b", better))
    one = find(found, "quiz", "alpha")
    assert one.difference.value == 1.0
    assert not one.separated


def test_the_command_prints_json_a_table_and_a_page(longer, tmp_path):
    hostile = "<script>alert(1)</script>"
    cells = tuple(
        dataclasses.replace(c, method=hostile) if c.method == "alpha" else c for c in longer.cells
    )
    write(dataclasses.replace(longer, cells=cells), tmp_path / "a")
    write(dataclasses.replace(longer, cells=cells), tmp_path / "b")
    words = ["compare", str(tmp_path / "a"), str(tmp_path / "b")]
    done = CliRunner().invoke(group, [*words, "--json"], catch_exceptions=False)
    data = json.loads(done.stdout)
    assert done.stderr == ""
    assert {one["score"] for one in data["comparisons"]} == {
        *("Average", "Mean log perplexity", "ppl, log perplexity", "quiz")
    }
    page = tmp_path / "page.html"
    shown = CliRunner().invoke(group, [*words, "--html", str(page)], catch_exceptions=False)
    assert "random" in shown.stdout
    assert "+0.000 [+0.000, +0.000]" in shown.stdout
    text = page.read_text()
    assert hostile not in text
    assert "&lt;script&gt;" in text
    assert "http" not in text.replace("http://www.w3.org", "")
