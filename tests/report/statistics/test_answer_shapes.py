"""How generated answers look beside the unpruned model's, against counts and intervals by hand."""

import dataclasses
import math

import pytest
from scipy.stats import t

from helpers.generated_answers import ITEMS, LOOPING, generated, looping_run
from mbench.core.evaluation import evaluation
from mbench.report.statistics.boards import boards


@pytest.fixture(scope="module")
def results():
    return looping_run()


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


def test_few_items_are_not_tested_short_answers_have_no_loops_and_short_limits_are_told(results):
    first = results.cells[0]
    alone = dataclasses.replace(results, cells=(generated(first, 0, 90),))
    assert not boards(alone).groups[0].answer_warnings
    short = tuple(generated(c, 0, 60, long=False) for c in results.cells)
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
