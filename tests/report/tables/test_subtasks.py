"""Subtasks against loops over the items."""

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest

from helpers.browsing import accessibility, artefacts, open_everything, overflow, visit
from helpers.pages import html_of, render_page
from helpers.synthetic import paper_sized
from mbench.core.evaluation import evaluation
from mbench.report.statistics.boards import boards
from mbench.report.statistics.subtasks import subtasks

SUBJECTS = {f"mmlu_subject_{n}": 20 + 4 * n for n in range(57)}


def with_subjects(subjects=SUBJECTS):
    """One model at one budget, its task `mmlu` made of 57 subjects."""
    results = paper_sized(items=25)
    rng = np.random.default_rng(3)
    names = [f"{name}/{n}:0a:1b:2c" for name, count in subjects.items() for n in range(count)]
    level = np.repeat(rng.uniform(0.4, 0.9, len(subjects)), list(subjects.values()))
    tables, cells = {}, []
    for cell in results.cells:
        if cell.model != "qwen" or cell.retain not in (0.5, 1.0):
            continue
        level_here = level - (0.1 if cell.retain < 1 else 0)
        table = tables.setdefault(
            cell.mask,
            evaluation(
                "mmlu",
                pd.DataFrame({"item": names, "acc": (rng.random(len(names)) < level_here) * 1.0}),
            ),
        )
        cells.append(dataclasses.replace(cell, evaluations={**cell.evaluations, "mmlu": table}))
    return dataclasses.replace(results, cells=tuple(cells))


@pytest.fixture(scope="module")
def results():
    return with_subjects()


def by_hand(results, method, subject, seeds=(None,)):
    """Right answers to the items of a subject, over those that there are."""
    right = asked = 0
    for cell in results.cells:
        if (cell.method, cell.seed) in [(method, seed) for seed in seeds]:
            table = cell.evaluations["mmlu"].items
            for item, acc in zip(table["item"], table["acc"], strict=True):
                if item.startswith(f"{subject}/"):
                    right, asked = right + acc, asked + 1
    return right / asked


def test_means_and_items_are_those_of_loops(results):
    (board,) = boards(results).groups[0].boards
    (found,) = subtasks(board)
    assert found.task == "mmlu"
    assert dict(zip(found.names, found.items, strict=True)) == SUBJECTS
    assert set(found.methods) == {cell.method for cell in results.cells} - {"none"}
    for subject in ("mmlu_subject_0", "mmlu_subject_1", "mmlu_subject_56"):
        row = found.names.index(subject)
        full = by_hand(results, "none", subject)
        assert found.unpruned[row] == pytest.approx(full)
        for method, seeds in (("mean", (None,)), ("random", (0, 1, 2, 3, 4, 42))):
            column = found.methods.index(method)
            expected = by_hand(results, method, subject, seeds)
            assert found.means[row, column] == pytest.approx(expected)
            assert found.differences[row, column] == pytest.approx(expected - full)


def test_the_margin_is_what_another_draw_of_the_items_moves_a_difference(results):
    """Of two independent coins with these chances, the difference of the means of n items."""
    (board,) = boards(results).groups[0].boards
    (found,) = subtasks(board)
    single = [n for n, method in enumerate(found.methods) if method != "random"]
    chance = found.unpruned[:, None], found.means[:, single]
    variance = sum(p * (1 - p) for p in chance) / found.items[:, None]
    assert found.margin == pytest.approx(float(np.median(1.96 * np.sqrt(variance))), rel=0.05)


def test_only_groups_of_two_subtasks_or_more_have_a_table(results):
    page = html_of(results)
    assert "57 subtasks of mmlu" in page
    assert page.count(" subtasks of ") == 1
    assert "Nothing is tested here: a subtask has 20 to 244 items" in page
    assert "subtasks of" not in html_of(with_subjects({"mmlu_one": 60}))
    unpruned = tuple(cell for cell in results.cells if cell.method != "none")
    (board,) = boards(dataclasses.replace(results, cells=unpruned)).groups[0].boards
    (found,) = subtasks(board)
    assert np.isnan(found.differences).all()
    assert math.isnan(found.margin)


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_the_table_reads_on_any_screen(browser, results, tmp_path, width, scheme):
    page = render_page(results, tmp_path / "page")
    with visit(browser, f"{page.as_uri()}#model-1-budget-1-subtasks-1", width, scheme) as tab:
        open_everything(tab)
        tab.locator("#model-1-budget-1-subtasks-1").scroll_into_view_if_needed()
        tab.screenshot(path=artefacts() / f"subtasks-{width}-{scheme}.png")
        assert overflow(tab) <= 0
        (board,) = boards(results).groups[0].boards
        (found,) = subtasks(board)
        for suffix, expected in (("", found.differences), ("-means", found.means)):
            rows = tab.eval_on_selector_all(
                f"#model-1-budget-1-subtasks-1{suffix} tbody tr",
                "rows => rows.map(r => [...r.cells].slice(3).map(c => c.textContent.trim()))",
            )
            told = [[float(t.replace("\N{MINUS SIGN}", "-")) for t in row] for row in rows]
            np.testing.assert_allclose(told, expected, atol=0.0005001)
        worse = tab.locator("#model-1-budget-1-subtasks-1 td.worse").count()
        assert worse == (found.differences < 0).sum()
        assert accessibility(tab) == []
