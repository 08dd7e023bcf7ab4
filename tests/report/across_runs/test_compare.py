"""Paired differences, against a plain bootstrap, scipy, and cases whose answer is known."""

from __future__ import annotations

import dataclasses
import html
import json
import math

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from scipy import stats as scipy_stats

from helpers.altered import altered
from helpers.records import recorded
from helpers.small_runs import change, grid, items, run, with_items
from mbench.cli import group
from mbench.core.errors import MbenchError
from mbench.core.evaluation import evaluation
from mbench.report.across_runs.compare import compare
from mbench.storage.results_folder import write

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
    # Beta is a little better, by other amounts at other budgets.
    return of_cells(
        whole,
        lambda c: c.method == "beta",
        "quiz",
        lambda c, t: t.assign(acc=t["acc"].where(t.index > 160 * c.retain, 1.0)),
    )


def of_cells(whole, chosen, task, altered):
    """The run with `altered(cell, table)` for the chosen cells."""
    cells = []
    for one in whole.cells:
        if chosen(one):
            table = altered(one, one.evaluations[task].items)
            found = {**one.evaluations, task: evaluation(task, table)}
            one = dataclasses.replace(one, evaluations=found)
        cells.append(one)
    return dataclasses.replace(whole, cells=tuple(cells))


def find(found, score, method, retain=0.5):
    (one,) = [
        c for c in found.compared if (c.score, c.methods[0], c.retain) == (score, method, retain)
    ]
    return one


def test_what_both_computed_alike_is_identical_and_no_comparison(longer):
    again = longer
    for task in ("quiz", "ppl"):
        again = with_items(again, task, lambda t: t[::-1].reset_index(drop=True))
    found = compare(("a", longer), ("b", again))
    assert {one.difference.value for one in found.compared} == {0.0}
    assert {one.difference.problem for one in found.compared} == {"identical"}
    assert (found.families, found.settings, found.not_compared) == ({}, (), ())
    # One method changed: it alone is tested, as if nothing else were there.
    beta = lambda c: c.method == "beta"  # noqa: E731
    one_right = lambda c, t: t.assign(acc=t["acc"].where(t.index > 0, 1 - t["acc"]))  # noqa: E731
    other = of_cells(again, beta, "quiz", one_right)
    found = compare(("a", longer), ("b", other))
    assert found.families == {"the overall scores": 2, "the single tasks": 2}
    assert {one.methods[0] for one in found.compared if not one.difference.problem} == {"beta"}
    assert find(found, "quiz", "beta").difference.size == 2
    assert find(found, "quiz", "random").difference.problem == "identical"


def test_equal_figures_of_unlike_computations_are_no_identity(longer):
    """Other experts, another dtype, or an outcome that no score counts: more items may differ."""
    unpruned, *cells = longer.cells
    for unlike in ({"mask": "other experts"}, {"router": "preserved"}):
        other = dataclasses.replace(longer, cells=(dataclasses.replace(unpruned, **unlike), *cells))
        one = find(compare(("a", longer), ("b", other)), "quiz", "none", 1.0)
        assert (one.difference.problem, one.difference.value, one.difference.p) == ("", 0.0, 1.0)
        assert one.difference.low < 0 < one.difference.high
    other = change(longer, ("models", "m", "dtype"), "float16")
    assert compare(("a", longer), ("b", other)).families == {
        "the overall scores": 14,
        "the single tasks": 14,
    }
    told = [with_items(longer, "quiz", lambda t, x=x: t.assign(answer=x)) for x in "AAB"]
    quiz = [find(compare(("a", told[0]), ("b", b)), "quiz", "alpha") for b in told[1:]]
    assert [one.difference.problem for one in quiz] == ["identical", ""]
    # Perplexities of another number of threads are the same up to rounding, like a merge says.
    lost = [
        with_items(longer, "ppl", lambda t, x=x: t.assign(nll=t["nll"] * x))
        for x in (1 + 1e-7, 1.01)
    ]
    ppl = [find(compare(("a", longer), ("b", b)), PPL, "alpha") for b in lost]
    assert [one.difference.problem for one in ppl] == ["identical", ""]


def test_equal_scores_with_other_log_likelihoods_are_no_identity():
    """A hundred items, all right, with choices 1e-6 and a tenth further apart."""

    def likely(by):
        table = pd.DataFrame({"item": [f"quiz/{n}" for n in range(100)], "acc": 1.0})
        rows = [(-1.0 * by, -9.0, -9.0)] * 100
        return with_items(run(grid()), "quiz", lambda _: table.assign(loglikelihoods=rows))

    for by, problem in ((1.0, "identical"), (1 + 1e-6, "identical"), (1.1, "")):
        one = find(compare(("a", likely(1.0)), ("b", likely(by))), "quiz", "alpha")
        assert (one.difference.value, one.difference.problem) == (0.0, problem)


def test_two_methods_against_scipy(longer):
    """Student's paired test of the items and of one won and one lost, then Holm over budgets; the
    interval is that of Student at 5 % over the family."""
    found = compare(("a", longer), ("a", longer), ("alpha", "beta"))
    raw = {}
    for retain in (0.25, 0.5):
        cells = {c.method: c for c in longer.cells if c.retain == retain}
        x, y = (cells[m].evaluations["quiz"].items["acc"].to_numpy() for m in ("alpha", "beta"))
        grown = np.r_[y - x, 1.0, -1.0]
        error = grown.std() / math.sqrt(len(grown))
        raw[retain] = 2 * scipy_stats.t.sf(abs(grown.mean()) / error, len(x) - 1)
        one = find(found, "quiz", "alpha", retain)
        assert one.difference.value == pytest.approx((y - x).mean())
        assert one.difference.p == pytest.approx(raw[retain])
        half = scipy_stats.t.isf(0.025 / one.difference.size, len(x) - 1) * error
        assert one.difference.high == pytest.approx(grown.mean() + half)
        assert one.values == (pytest.approx(x.mean()), pytest.approx(y.mean()))
    everything = sorted(c.difference.p for c in found.compared if c.score in ("quiz", PPL))
    for retain, p in raw.items():
        place = everything.index(pytest.approx(p))
        own = find(found, "quiz", "alpha", retain).difference
        assert own.adjusted >= min(1.0, (4 - place) * p) * (1 - 1e-9)
    assert found.families == {"the overall scores": 4, "the single tasks": 4}


PPL = "ppl, log perplexity"


def test_the_unpruned_model_is_compared_with_every_budget(longer):
    found = compare(("a", longer), ("a", longer), ("none", "beta"))
    places = {(c.methods, c.retain) for c in found.compared}
    assert places == {(("none", "beta"), 0.25), (("none", "beta"), 0.5)}
    turned = compare(("a", longer), ("a", longer), ("beta", "none"))
    for one in found.compared:
        (other,) = [c for c in turned.compared if (c.score, c.retain) == (one.score, one.retain)]
        assert other.difference.value == -one.difference.value
        assert other.difference.low == pytest.approx(-one.difference.high)


def test_seeds_of_one_method_are_compared_seed_by_seed(longer):
    """A shift that every seed shows is certain, however much the seeds differ."""
    worse = with_items(longer, "ppl", lambda t: t.assign(nll=t["nll"] + 0.01 * t["tokens"]))
    found = compare(("a", longer), ("b", worse))
    one = find(found, "Mean log perplexity", "random")
    assert one.seeds == (2, 2)
    assert one.difference.value == pytest.approx(0.01)
    assert (one.difference.low, one.difference.high) == (pytest.approx(0.01), pytest.approx(0.01))
    assert one.difference.clear
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
    assert found.compared == ()
    assert [each.line() for each in found.not_compared] == [
        "m, Average and quiz: the runs have no item in common",
        "m, Mean log perplexity and ppl, log perplexity: ppl with other tokens in the same windows"
        " in b",
    ]
    retold = change(longer, ("tasks", "ppl", "text"), {"documents": "other"})
    found = compare(("a", longer), ("b", retold))
    said = [each.line() for each in found.not_compared]
    assert said == ["m, Mean log perplexity and ppl, log perplexity: the runs read different texts"]
    assert found.settings == ("task ppl › text › documents: text of ppl in a; other in b",)
    with pytest.raises(MbenchError, match=r"a has no method 'gamma' \(there: none, random"):
        compare(("a", longer), ("b", longer), ("gamma", "beta"))
    with pytest.raises(MbenchError, match=r"method 'randon'; did you mean 'random'\? \(there: "):
        compare(("a", longer), ("b", longer), ("randon", "beta"))
    elsewhere = run(grid(models=("n",)))
    with pytest.raises(MbenchError, match="a and b have no model, budget and method in common"):
        compare(("a", longer), ("b", elsewhere))


ALPHA = {
    "infinite": ("ppl", lambda c, t: t.assign(nll=math.inf), "ppl has an outcome that is not fin"),
    "nan": ("ppl", lambda c, t: t.assign(nll=math.nan), "ppl has an outcome that is not finite"),
    "no metric": ("quiz", lambda c, t: t.assign(acc=math.nan), "quiz has no outcome"),
    "twice": ("quiz", lambda c, t: t.iloc[[0, *range(len(t))]], "quiz has an item twice"),
    "short": ("quiz", lambda c, t: t.iloc[:50], "quiz on other items, 50 of 200 in common"),
    "other mask": ("quiz", lambda c, t: 1, "quiz has two different outcomes for the same experts"),
}


@pytest.mark.parametrize("kind", ALPHA)
@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
def test_a_cell_without_comparable_outcomes_is_named_and_changes_nothing_else(longer, kind):
    task, altered, message = ALPHA[kind]
    if kind == "other mask":
        mask = next(c.mask for c in longer.cells if (c.method, c.retain) == ("alpha", 0.5))
        other = dataclasses.replace(
            longer,
            cells=tuple(
                dataclasses.replace(c, mask=mask) if (c.method, c.retain) == ("beta", 0.5) else c
                for c in longer.cells
            ),
        )
    else:
        chosen = lambda c: (c.method, c.retain) == ("alpha", 0.5)  # noqa: E731
        other = of_cells(longer, chosen, task, altered)
    found = compare(("a", longer), ("b", other))
    score = "ppl, log perplexity" if task == "ppl" else "quiz"
    lacking = [each for each in found.not_compared if each.reason.startswith(message)]
    assert "m 50\u00a0% pruned, alpha" in lacking[0].what
    assert score in lacking[0].scores
    if len(lacking[0].what) > 1:
        assert lacking[0].line(most=1).startswith(f"{lacking[0].what[0]} and 1 more; ")
    places = {(c.methods[0], c.retain) for c in found.compared if c.score == score}
    assert ("alpha", 0.5) not in places
    assert ("random", 0.5) in places
    kept = [c for c in found.compared if c.score == "quiz"]
    assert {c.items for c in kept} == {ITEMS}
    assert not any(c.difference.clear for c in found.compared)


def test_two_guesses_are_at_the_floor():
    """Four answers: a tenth right in one run, a quarter in the other, and all in a third."""

    def able(right):
        table = pd.DataFrame(
            {
                "item": [f"quiz/{n}" for n in range(400)],
                "acc": [float(n < right) for n in range(400)],
                "loglikelihoods": [(0.0,) * 4] * 400,
            }
        )
        return with_items(run(grid()), "quiz", lambda _: table)

    one = find(compare(("a", able(40)), ("b", able(100))), "quiz", "alpha")
    assert one.difference.problem == "not told apart from guessing"
    assert math.isnan(one.difference.p)
    one = find(compare(("a", able(40)), ("b", able(400))), "quiz", "alpha")
    assert one.difference.clear


def test_from_the_unpruned_model_to_guesses_is_a_loss():
    def able(cell):
        right = 360 if cell.method == "none" else 100
        table = pd.DataFrame(
            {
                "item": [f"quiz/{n}" for n in range(400)],
                "acc": [float(n < right) for n in range(400)],
                "loglikelihoods": [(0.0,) * 4] * 400,
            }
        )
        found = {**cell.evaluations, "quiz": evaluation("quiz", table)}
        return dataclasses.replace(cell, evaluations=found)

    made = altered(able, run(grid()))
    found = compare(("a", made), ("a", made), methods=("none", "alpha"))
    (one,) = {c.difference for c in found.compared if c.score == "quiz" and c.retain == 0.5}
    assert one.clear
    assert one.value == pytest.approx(-0.65)


def test_nothing_is_significant_with_few_items():
    whole = run(grid())
    small = with_items(whole, "quiz", lambda t: t.iloc[:5].assign(acc=0.0))
    better = with_items(whole, "quiz", lambda t: t.iloc[:5].assign(acc=1.0))
    found = compare(("a", small), ("b", better))
    one = find(found, "quiz", "alpha")
    assert one.difference.value == 1.0
    assert one.difference.problem == "too few items to tell: 5"
    assert not one.difference.clear


def test_the_command_prints_json_a_table_and_a_page(longer, tmp_path):
    hostile = "<script>alert(1)</script>"
    cells = tuple(
        dataclasses.replace(c, method=hostile) if c.method == "alpha" else c for c in longer.cells
    )
    renamed = recorded(dataclasses.replace(longer, cells=cells))
    write(renamed, tmp_path / "a")
    worse = of_cells(renamed, lambda c: c.method == hostile, "quiz", lambda c, t: t.assign(acc=0.0))
    write(worse, tmp_path / "b")
    words = ["compare", str(tmp_path / "a"), str(tmp_path / "b")]
    done = CliRunner().invoke(group, [*words, "--json"], catch_exceptions=False)
    data = json.loads(done.stdout)
    assert done.stderr == ""
    assert {one["score"] for one in data["comparisons"]} == {
        *("Average", "Mean log perplexity", "ppl, log perplexity", "quiz")
    }
    assert data["correction"] == {
        "method": "Holm",
        "comparisons": {"the overall scores": 2, "the single tasks": 2},
    }
    assert {one["not_tested_because"] for one in data["comparisons"]} == {"", "identical"}
    page = tmp_path / "page.html"
    shown = CliRunner().invoke(group, [*words, "--html", str(page)], catch_exceptions=False)
    assert "random" in shown.stdout
    assert "+0.000 identical" in shown.stdout
    text = page.read_text()
    assert hostile not in text
    said = "Holm's method over all 2 of the overall scores, and separately over all 2 of the single"
    for line in (said, "same experts of the same model, with the same outcome of every item"):
        assert line in " ".join(html.unescape(text).split())
        assert line in " ".join(shown.stdout.split())
    shown = CliRunner().invoke(group, [*words[:2], words[1]], catch_exceptions=False)
    assert "\nnothing is tested\nidentical: " in shown.stdout
    assert "95 %" not in shown.stdout
    assert "&lt;script&gt;" in text
    assert f"<h1>{tmp_path / 'b'} minus {tmp_path / 'a'}</h1>" in text
    two = [*words[:2], "--methods", "random", hostile]
    shown = CliRunner().invoke(group, two, catch_exceptions=False)
    assert f"{hostile} minus random in {tmp_path / 'a'}, 95 %" in shown.stdout
    assert "http" not in text.replace("http://www.w3.org", "")
