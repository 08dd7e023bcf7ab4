"""Rows of the page's leaderboard that lack their score: all other figures, and why."""

import csv
import dataclasses
import io
import math
from pathlib import Path

import pytest

from helpers.browsing import artefacts, overflow, visit
from helpers.demo_results import SEEDS, synthetic
from helpers.pages import render_page
from mbench.core.cell_results import TaskStatus

LATE = TaskStatus("interrupted", "the hours were over before this: run it again to go on")
TASK = "cloze-code"


def late(cell, tasks):
    """A cell of which the run did not reach these tasks."""
    return dataclasses.replace(
        cell,
        evaluations={t: own for t, own in cell.evaluations.items() if t not in tasks},
        tasks={**cell.tasks, **dict.fromkeys(tasks, LATE)},
    )


@pytest.fixture(scope="module")
def results():
    """At 50 %, random and reap-bible lack one task, mean all, and frequency failed one; of random
    pruning one seed alone has a perplexity on code."""
    lacking = {"random": {TASK}, "reap-bible": {TASK}, "mean": set(synthetic().task_metrics)}
    cells = []
    for cell in synthetic().cells:
        gone = lacking.get(cell.method, set()) if cell.retain == 0.5 else set()
        more = {"code"} if gone and cell.seed not in (None, 0) else set()
        cells.append(late(cell, gone | more))
    return dataclasses.replace(synthetic(), cells=tuple(cells))


@pytest.fixture(scope="module")
def page(results, tmp_path_factory):
    return render_page(results, tmp_path_factory.mktemp("late"))


def figures(results, method):
    """By loops: the mean over seeds of an accuracy and of a perplexity."""
    found = [c.evaluations for c in results.cells if (c.method, c.retain) == (method, 0.5)]
    right = [list(own["cloze-bible"].items["acc_norm"]) for own in found]
    texts = [own["bible"].items for own in found]
    perplexities = [math.exp(sum(t["nll"]) / sum(t["tokens"])) for t in texts]
    mean = sum(perplexities) / len(found)
    return [
        f"{sum(sum(own) / len(own) for own in right) / len(found):.3f}",
        f"{mean:.{2 if mean < 100 else 1}f}",
    ]


@pytest.mark.parametrize("width", [390, 1280])
def test_a_row_without_its_score_shows_its_other_figures_and_why(browser, results, page, width):
    with visit(browser, page, width) as tab:
        tab.get_by_role("button", name="50\N{NO-BREAK SPACE}% pruned").click()
        tab.evaluate("choices.set({ columns: 'task:bible,task:code' })")
        heads = len(tab.locator("#lb thead th").all())
        rows = {row.locator(".name").inner_text(): row for row in tab.locator("#lb tbody tr").all()}
        for method, why in (
            ("random", LATE.reason),
            ("reap-bible", LATE.reason),
            ("frequency", "out of memory"),
        ):
            cells = rows[method].locator("td, th")
            said = rows[method].locator("td.why")
            assert said.inner_text() == why
            assert said.get_attribute("colspan") == "2"
            assert cells.count() == heads - 1
            shown = cells.all_text_contents()
            assert [text for text in figures(results, method) if text not in shown] == []
        seeds = f"{len(SEEDS)} seeds"
        assert seeds in rows["random"].inner_text()
        (first,) = (c for c in results.cells if (c.method, c.seed, c.retain) == ("random", 0, 0.5))
        texts = first.evaluations["code"].items
        alone = math.exp(sum(texts["nll"]) / sum(texts["tokens"]))
        text = f"{alone:.{2 if alone < 100 else 1}f}1 of {seeds}"
        assert text in rows["random"].locator("td").all_text_contents()
        # Nothing of it was measured: one line.
        assert rows["mean"].locator("td").all_inner_texts() == [LATE.reason]
        # What explains a head is on the line where its name ends.
        for head in tab.locator("#lb thead th:has(.term):visible").all():
            name, link = (head.locator(own).bounding_box() for own in ("button", ".term"))
            assert link["y"] < name["y"] + name["height"]
        tab.locator("#lb").screenshot(path=artefacts() / f"rows-without-score-{width}.png")
        assert overflow(tab) <= 0
        assert tab.problems == []


def test_they_are_sorted_by_a_task_and_downloaded_with_the_reason(browser, results, page):
    with visit(browser, page) as tab:
        tab.get_by_role("button", name="50\N{NO-BREAK SPACE}% pruned").click()
        tab.locator("#lb thead button", has_text="cloze-bible").click()
        column = tab.locator("#lb tbody tr:not(.unranked) td.c-task").all_text_contents()[::3]
        assert figures(results, "reap-bible")[0] in column
        assert column == sorted(column, key=float, reverse=True)
        tab.locator("summary", has_text="Download").click()
        with tab.expect_download() as waiting:
            tab.get_by_role("button", name="CSV").click()
        text = Path(waiting.value.path()).read_text()
    found = {row["method"]: row for row in csv.DictReader(io.StringIO(text))}
    assert "mean" not in found
    for method in ("random", "reap-bible"):
        own = found[method]
        assert (own["value"], own["difference"]) == ("", "")
        assert own["no_value_because"] == LATE.reason
        assert f"{float(own['cloze-bible (acc_norm)']):.3f}" == figures(results, method)[0]
    assert found["max"]["no_value_because"] == ""
