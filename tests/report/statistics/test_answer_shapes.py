"""How generated answers look beside the unpruned model's, against counts and intervals by hand."""

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t

from helpers.page_tables import Tables
from helpers.pages import html_of
from helpers.small_runs import grid, run
from mbench.core.evaluation import evaluation
from mbench.core.results import long_form
from mbench.report.page.leaderboard_data import leaderboard_data
from mbench.report.statistics.boards import boards

ITEMS = 200
LOOPING = {"none": 4, "alpha": 68, "beta": 4, "random": 7}
"""Of the 200 answers of each method, so many of the first ones loop."""


def generated(cell, loops, cut, lengths=True):
    """The cell with a task of generated answers."""
    random = np.random.default_rng([loops, cut])
    at = np.arange(ITEMS)
    table = pd.DataFrame(
        {
            "item": [f"{n}:doc:prompt:target" for n in range(ITEMS)],
            "acc": (at % 2).astype(float),
            "answer": "so it is",
            "hit_limit": (at < cut).astype(float),
            "loops": (at < loops).astype(float),
            "rep_4": random.random(ITEMS),
            "answer_tokens": random.integers(1, 99, ITEMS).astype(float),
        }
    )
    if not lengths:
        table = table.drop(columns="loops")
    return dataclasses.replace(
        cell, evaluations={**cell.evaluations, "quiz": evaluation("quiz", table)}
    )


@pytest.fixture(scope="module")
def results():
    whole = run(grid(retains=(0.5,)))
    cells = [generated(c, LOOPING[c.method], 10 + 30 * (c.method == "beta")) for c in whole.cells]
    return dataclasses.replace(whole, cells=tuple(cells))


def test_shares_differences_and_warnings(results):
    ((board,),) = [group.boards for group in boards(results).groups]
    (shapes,) = board.answers
    assert (shapes.task, shapes.metric) == ("quiz", "acc")
    rows = {row.entry.method: row for row in shapes.rows}
    assert {m: row.figures["loops"] * ITEMS for m, row in rows.items()} == pytest.approx(LOOPING)
    assert not rows["none"].against
    compared = rows["alpha"].against["loops"]
    # Bonett and Price: one item won and one lost are added; three methods are compared at once.
    more, fewer, count = 64 + 1, 0 + 1, ITEMS + 2
    centre = (more - fewer) / count
    error = math.sqrt(((more + fewer) / count - centre**2) / count)
    reach = t.isf(0.025 / 3, ITEMS - 1) * error
    assert compared.value == pytest.approx(64 / ITEMS)
    assert [compared.low, compared.high] == pytest.approx(
        [centre - reach, centre + reach], abs=2e-4
    )
    assert compared.clear
    assert not rows["beta"].against["loops"].clear
    assert rows["beta"].against["hit_limit"].clear
    assert list(shapes.warnings) == [
        "quiz: acc hides that answers end in a loop: 34\xa0% of alpha's, 2\xa0% of the unpruned"
        " model's.",
        "quiz: acc hides that answers are cut off at the limit: 20\xa0% of beta's, 5\xa0% of the"
        " unpruned model's.",
    ]
    assert shapes.short_limit == ""


def test_the_page_shows_them_and_nothing_is_ranked_by_them(results):
    page = html_of(results)
    assert "34\xa0% of alpha&#39;s, 2\xa0% of the unpruned model&#39;s" in page
    table = next(
        rows for name, rows in Tables(page).tables.items() if name.startswith("Generated answers")
    )
    assert table[1][0] == "unpruned"
    shown = {row[0].split("|")[0]: row for row in table[1:]}
    assert shown["alpha"][2] == "34.0\xa0%"
    assert shown["alpha"][3].startswith("+0.320|[+0.2")
    assert shown["beta"][4] == "20.0\xa0%"
    data = leaderboard_data(boards(results))
    (budget,) = data["models"][0]["budgets"]
    assert budget["answers"] == {
        "quiz": {
            "none": [0.02, 0.05],
            "random": [0.035, 0.05],
            "alpha": [0.34, 0.05],
            "beta": [0.02, 0.2],
        }
    }
    assert {score["id"] for score in data["scores"]} == {
        "score", "perplexity", "task:quiz", "task:ppl"
    }  # fmt: skip
    long = long_form(results).query("task == 'quiz' and metric == 'loops' and method == 'alpha'")
    assert long["value"].tolist() == [0.34]


def test_few_items_are_not_tested_short_answers_have_no_loops_and_short_limits_are_told(results):
    first = results.cells[0]
    alone = dataclasses.replace(results, cells=(generated(first, 0, 90),))
    assert not boards(alone).groups[0].answer_warnings
    short = tuple(generated(c, 0, 60, lengths=False) for c in results.cells)
    (group,) = boards(dataclasses.replace(results, cells=short)).groups
    (shapes,) = group.boards[0].answers
    assert all("loops" not in row.figures for row in shapes.rows)
    assert group.answer_warnings == (
        "quiz: 30\xa0% of the unpruned model's own answers are cut off at the limit of tokens; a"
        " higher max_gen_toks may change all figures.",
    )
    few = tuple(
        dataclasses.replace(
            c,
            evaluations={"quiz": evaluation("quiz", c.evaluations["quiz"].items.head(8))},
            tasks={"quiz": c.tasks["quiz"]},
        )
        for c in results.cells
    )
    few = dataclasses.replace(
        results, cells=few, task_metrics={"quiz": "acc"}, average_tasks=("quiz",)
    )
    (group,) = boards(few).groups
    (shapes,) = group.boards[0].answers
    alpha = next(row for row in shapes.rows if row.entry.method == "alpha")
    assert alpha.against["loops"].problem == "too few items to tell: 8"
    assert not list(shapes.warnings)
