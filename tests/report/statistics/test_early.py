"""What is told of figures from some of the items: by simulation, and where it reaches readers."""

import dataclasses
import itertools
import json

import numpy as np
import pytest

from helpers.demo_results import synthetic
from mbench import long_form, ranked
from mbench.core.early import EarlyFigure
from mbench.core.results import TaskStatus
from mbench.report.across_runs.merge import merge
from mbench.report.page.index import to_json
from mbench.report.page.leaderboard_data import leaderboard_data
from mbench.report.page.render import to_html
from mbench.report.statistics.boards import boards
from mbench.report.statistics.early import estimate_of, told
from mbench.report.statistics.groups import Entry
from mbench.report.statistics.scores import Score
from mbench.report.tables_for_papers import to_latex, to_markdown
from mbench.run.early.population import Population
from mbench.run.early.verdict import verdict
from mbench.storage.results_folder import read, write

TASKS = ("cloze-bible", "cloze-code")
SCORE = Score("Average", tuple((task, "acc_norm") for task in TASKS), higher=True)


def early_figure(population, mask, order, looks, masks, tasks):
    """As a run would have it after its first look, at `order`."""
    found = verdict(
        population, [mask.iloc[order]], population.told_by(population.full), looks, masks, tasks
    )
    ends = [end - population.full_mean for pair in (found.own, found.among) for end in pair]
    return EarlyFigure(
        found.items,
        len(population.full),
        1,
        looks + 1,
        found.mean,
        found.mean - population.full_mean,
        *ends,
        *(end - population.full_mean for end in found.overall),
        population.item_error([mask.iloc[order]]),
        masks,
        1,
        "precise",
    )


def as_early(cell, figures):
    """A cell with early figures in place of its evaluations of these tasks."""
    tasks = {**cell.tasks, **{task: TaskStatus("early", "after some") for task in figures}}
    whole = {task: own for task, own in cell.evaluations.items() if task not in figures}
    return dataclasses.replace(cell, evaluations=whole, tasks=tasks, early=figures)


def drawn(results, rng, chosen, items=120):
    """The results with the chosen cells known from the first items of one random order a task."""
    full = results.cells[0]
    populations = {
        task: Population(full.evaluations[task].items, np.arange(200), "acc_norm") for task in TASKS
    }
    orders = {task: rng.permutation(200)[:items] for task in TASKS}
    cells = []
    for cell in results.cells:
        if chosen(cell):
            figures = {
                task: early_figure(
                    populations[task],
                    cell.evaluations[task].items,
                    orders[task],
                    2,
                    sum(map(chosen, results.cells)),
                    len(TASKS),
                )
                for task in TASKS
            }
            cell = as_early(cell, figures)
        cells.append(cell)
    return dataclasses.replace(results, cells=tuple(cells))


def test_no_more_than_5_percent_of_orders_have_a_wrong_claim():
    results = synthetic(failures=False)
    methods = {"mean", "max", "frequency", "output-norm", "tb-coverage", "reap-wiki"}
    full = results.cells[0]
    truth = {
        cell.method: SCORE.value(cell)
        for cell in results.cells
        if cell.retain == 0.5 and cell.method in methods
    }
    all_right = SCORE.value(full)
    rng = np.random.default_rng(3)
    wrong = outside = claims = 0
    orders = 40
    for _ in range(orders):
        known = drawn(results, rng, lambda c: c.retain == 0.5 and c.method in methods)
        found = {
            cell.method: estimate_of(Entry(cell.method, (cell,)), SCORE, full)
            for cell in known.cells
            if cell.retain == 0.5 and cell.method in methods
        }
        outside += any(not own.low <= truth[name] <= own.high for name, own in found.items())
        # The unpruned model has all items: pairs with it are told apart.
        found["none"], truth["none"] = estimate_of(Entry("none", (full,)), SCORE, full), all_right
        clear = [
            (told(found[a], found[b], "methods", 21, 6), truth[a] - truth[b])
            for a, b in itertools.combinations(found, 2)
        ]
        claims += sum(own.clear for own, _ in clear)
        wrong += any(own.clear and own.value * true < 0 for own, true in clear)
    assert wrong / orders <= 0.05
    assert outside / orders <= 0.05
    assert claims > 0


@pytest.fixture(scope="module")
def mixed():
    """Some methods at the middle budget are early, one of six random masks among them."""
    chosen = {("mean", None), ("max", None), ("random", 0)}
    return drawn(
        synthetic(failures=False),
        np.random.default_rng(1),
        lambda cell: cell.retain == 0.5 and (cell.method, cell.seed) in chosen,
    )


def test_early_figures_are_written_read_and_merged(mixed, tmp_path):
    write(mixed, tmp_path)
    again = read(tmp_path)
    assert [cell.early for cell in again.cells] == [cell.early for cell in mixed.cells]
    assert [cell.tasks for cell in again.cells] == [cell.tasks for cell in mixed.cells]
    table = long_form(mixed)
    rows = table[table.status == "early"]
    assert len(rows) == 3 * len(TASKS)
    assert (rows["items"] == 120).all()
    assert (rows["of"] == 200).all()
    assert (rows.low <= rows.difference).all()
    assert rows.stderr.isna().all()
    # Whole beats early.
    joined = merge({"early": mixed, "whole": synthetic(failures=False)})
    assert not any(cell.early for cell in joined.cells)


def test_results_of_whole_evaluations_have_none(tmp_path):
    write(synthetic(failures=False), tmp_path)
    data = json.loads((tmp_path / "results.json").read_text())
    assert data["format"] == 10
    assert all(cell["early"] == {} for cell in data["cells"])


def test_nothing_is_tested_of_early_figures_and_they_say_so(mixed):
    run = boards(mixed)
    board = next(board for board in run.groups[0].boards if board.retain == 0.5)
    early = [row for row in board.by_task["cloze-bible"].ranked if row.early is not None]
    assert {row.label for row in early} == {"mean", "max"}
    whole = board.by_task["cloze-bible"].compare("frequency", "none")
    mean = board.by_task["cloze-bible"].compare("mean", "none")
    assert not whole.early
    assert mean.early
    assert np.isnan(mean.p)
    # One of six random masks is early, so all that is compared with their mean is.
    assert board.by_task["cloze-bible"].compare("frequency", "random").early
    assert board.by_task["cloze-bible"].row_of("mean").masks_beaten is None
    data = leaderboard_data(run)
    budget = next(own for own in data["models"][0]["budgets"] if own["retain"] == 0.5)
    assert budget["early"]["mean"]["cloze-bible"][0] == "early: 120 of 200 items"
    assert budget["early"]["random"]["cloze-bible"][0] == "1 of 6 masks early"
    assert json.dumps(to_json(run), allow_nan=False)
    html = to_html(run)
    assert "Early verdict:" in html
    assert "Figures from some of the items" in html
    assert "120 of 200 items" in to_markdown(run)
    assert "120 of 200 items" in to_latex(run)
    table = ranked(mixed)
    at = table[table.retain == 0.5].set_index("method")
    assert not at.early["frequency"]


def test_bounds_for_too_few_masks_tell_nothing(mixed):
    full = mixed.cells[0]
    cells = {c.method: c for c in mixed.cells if c.retain == 0.5 and c.early}
    one, two = (estimate_of(Entry(n, (cells[n],)), SCORE, full) for n in ("mean", "max"))
    assert told(one, two, "methods", 1, 3).problem == ""
    assert "hold for 3 masks at once, and here are 9" in told(one, two, "methods", 1, 9).problem


def test_a_method_without_some_tasks_has_no_average_and_fails_nothing():
    results = synthetic(failures=False)
    left = TaskStatus("left out", "the suite does not ask for it of this method")
    cells = tuple(
        dataclasses.replace(
            cell,
            tasks={**cell.tasks, "cloze-code": left},
            evaluations={t: e for t, e in cell.evaluations.items() if t != "cloze-code"},
        )
        if cell.method == "random"
        else cell
        for cell in results.cells
    )
    run = boards(dataclasses.replace(results, cells=cells))
    board = run.groups[0].boards[0]
    assert board.ranking.random is None
    assert board.ranking.untested["random"] == "random pruning was not asked for cloze-code"
    assert board.by_task["cloze-bible"].random is not None
    assert not board.by_task["cloze-bible"].untested
    html = to_html(run)
    assert "not asked for" in html
    assert 'id="failures"' not in html
