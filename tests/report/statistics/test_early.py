"""What is told of figures from some of the items: by simulation, and where it reaches readers."""

import dataclasses
import json
import re

import numpy as np
import pandas as pd
import pytest

from helpers.damage import flip
from helpers.demo_results import synthetic
from mbench import long_form, ranked
from mbench.cli.standings import show_standings
from mbench.core.cell_results import TaskStatus
from mbench.core.early import EarlyFigure, EarlyGoal
from mbench.core.errors import StoreError
from mbench.report.across_runs.compare import compare
from mbench.report.across_runs.merge import merge
from mbench.report.page.early import early_at, early_note
from mbench.report.page.index import to_json
from mbench.report.page.leaderboard_data import leaderboard_data
from mbench.report.page.render import to_html
from mbench.report.statistics.boards import boards
from mbench.report.statistics.early_pairs import EarlyPairs
from mbench.report.statistics.groups import arrange
from mbench.report.statistics.pairing import pair
from mbench.report.statistics.ranking import rankings
from mbench.report.statistics.scores import Score
from mbench.report.tables.every_seed import every_seed
from mbench.report.tables_for_papers import to_latex, to_markdown
from mbench.run.early.population import Population
from mbench.run.early.verdict import verdict
from mbench.storage.results_folder import read, write
from mbench.storage.results_json import FORMAT

TASKS = ("cloze-bible", "cloze-code")
PAIR = {(0.5, "max"), (0.5, "mean")}
SCORE = Score("Average", tuple((task, "acc_norm") for task in TASKS), higher=True)


def early_figure(population, mask, order, masks, tasks):
    """As a run would have it after its only look but the last, at `order`."""
    found = verdict(
        population, [mask.iloc[order]], population.told_by(population.full), 1.0, masks, tasks
    )
    ends = [end - population.full_mean for pair in (found.own, found.among) for end in pair]
    return EarlyFigure(
        found.items,
        len(population.full),
        1,
        2,
        found.mean,
        found.mean - population.full_mean,
        *ends,
        *(end - population.full_mean for end in found.overall),
        masks,
        1,
        "precise",
    )


def looked(table, order, looks):
    """The items that come first in an order, in so many of the task's looks, one after another."""
    rest = np.setdiff1d(np.arange(len(table)), order) if looks > 1 else []
    first = table.iloc[[*order, *rest]]
    look = np.where(first["item"].isin(table["item"].iloc[order]), 0, 1).astype("int8")
    unit = first.index.to_numpy("int32")
    shown = {"item": first["item"], "unit": unit, "look": look, "value": first["acc_norm"]}
    # As a run writes them, look after look.
    return pd.DataFrame(shown).sort_values("look", kind="stable").reset_index(drop=True)


def as_early(cell, figures, tables):
    """A cell with early figures in place of its evaluations of these tasks."""
    tasks = {**cell.tasks, **{task: TaskStatus("early", "after some") for task in figures}}
    whole = {task: own for task, own in cell.evaluations.items() if task not in figures}
    return dataclasses.replace(cell, evaluations=whole, tasks=tasks, early=figures, looked=tables)


def drawn(results, rng, chosen, items=120):
    """The results with the chosen cells known from the first items of one random order a task."""
    full = results.cells[0]
    populations = {
        task: Population(full.evaluations[task].items, np.arange(200), "acc_norm") for task in TASKS
    }
    orders = {task: rng.permutation(200)[:items] for task in TASKS}
    design = {task: looked(full.evaluations[task].items, orders[task], looks=2) for task in TASKS}
    cells = [dataclasses.replace(full, looked=design)]
    for cell in results.cells[1:]:
        if chosen(cell):
            tables = {task: cell.evaluations[task].items for task in TASKS}
            count = sum(map(chosen, results.cells))
            figures = {
                task: early_figure(populations[task], tables[task], orders[task], count, len(TASKS))
                for task in TASKS
            }
            items_of = {task: looked(tables[task], orders[task], looks=1) for task in TASKS}
            cell = as_early(cell, figures, items_of)
        cells.append(cell)
    return dataclasses.replace(results, cells=tuple(cells))


def ranked_early(results):
    """The ranking at the middle budget by the mean of both tasks."""
    group = arrange(results)[0]
    paired = pair(group.cells, SCORE.parts)
    return rankings(group, SCORE, paired)[0.5]


def test_no_more_than_5_percent_of_orders_have_a_wrong_claim():
    results = synthetic(failures=False)
    at_budget = [cell for cell in results.cells if cell.retain in (0.5, 1)]
    results = dataclasses.replace(results, cells=tuple(at_budget))
    whole = ranked_early(results)
    rng = np.random.default_rng(3)
    wrong = claims = 0
    orders = 15
    for _ in range(orders):
        found = ranked_early(drawn(results, rng, lambda c: c.retain == 0.5)).comparisons
        said = [(own, whole.compare(*names)) for names, own in found.items() if own.clear]
        claims += len(said)
        wrong += any(own.value * true.value < 0 for own, true in said)
        assert all(own.early for own, _ in said)
    assert wrong / orders <= 0.05
    told = sum(own.clear for own in whole.comparisons.values())
    assert claims / orders > 0.5 * told


def test_a_difference_is_as_well_known_as_by_the_items_that_both_have():
    results = synthetic(failures=False)
    chosen = {"frequency", "tb-coverage"}
    known = drawn(
        results, np.random.default_rng(5), lambda c: c.retain == 0.5 and c.method in chosen
    )
    group = arrange(known)[0]
    budget = next(own for own in group.budgets if own.retain == 0.5)
    entries = [next(e for e in budget.entries if e.method == name) for name in sorted(chosen)]
    found = EarlyPairs(group, budget, SCORE).difference(*entries)
    variance = 0.0
    for task in TASKS:
        first, second = (entry.cells[0].looked[task]["value"].to_numpy() for entry in entries)
        variance += (first - second).var(ddof=1) / 120 / len(TASKS) ** 2
    assert found.variance[0] < 1.05 * variance
    # With every item it is that of the ordinary test.
    whole = ranked_early(results).compare(*sorted(chosen))
    assert found.centre[0] == pytest.approx(whole.value, abs=0.05)


def test_a_score_is_taken_after_the_least_share_of_any_of_its_tasks():
    results = synthetic(failures=False)
    chosen = ("max", "mean")
    known = drawn(results, np.random.default_rng(5), lambda c: (c.retain, c.method) in PAIR)
    cells = {cell.key: cell for cell in results.cells}
    # One of the two has all items of the second task.
    mended = [
        dataclasses.replace(
            cell,
            evaluations={**cell.evaluations, TASKS[1]: cells[cell.key].evaluations[TASKS[1]]},
            tasks={**cell.tasks, TASKS[1]: TaskStatus("ok")},
            early={TASKS[0]: cell.early[TASKS[0]]},
            looked={TASKS[0]: cell.looked[TASKS[0]]},
        )
        if (cell.retain, cell.method) == (0.5, "max")
        else cell
        for cell in known.cells
    ]
    both = []
    for each in (known, dataclasses.replace(known, cells=tuple(mended))):
        group = arrange(each)[0]
        budget = next(own for own in group.budgets if own.retain == 0.5)
        entries = [next(e for e in budget.entries if e.method == name) for name in chosen]
        both.append(EarlyPairs(group, budget, SCORE).difference(*entries))
    for name in ("centre", "variance", "freedom"):
        assert getattr(both[0], name) == pytest.approx(getattr(both[1], name))


def test_without_the_items_nothing_is_told(mixed):
    rankings_of = []
    for look, looks in ((1, 2), (2, 4)):
        bare = []
        for cell in mixed.cells:
            early = {
                task: dataclasses.replace(figure, look=look, looks=looks)
                for task, figure in cell.early.items()
            }
            bare.append(dataclasses.replace(cell, looked={}, early=early))
        rankings_of.append(ranked_early(dataclasses.replace(mixed, cells=tuple(bare))))
    for each in rankings_of:
        found = each.compare("mean", "max")
        assert found.problem == "early: the items that were evaluated are not in these results"
    # What is told of the others does not depend on looks of which nothing is known.
    whole = [
        [own.adjusted for own in each.comparisons.values() if not own.early and not own.problem]
        for each in rankings_of
    ]
    assert whole[0]
    assert whole[0] == whole[1]


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
    for own, other in zip(again.cells, mixed.cells, strict=True):
        assert own.looked.keys() == other.looked.keys()
        for task in own.looked:
            pd.testing.assert_frame_equal(own.looked[task], other.looked[task])
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


def test_damaged_items_of_early_figures_are_no_items(mixed, tmp_path):
    write(mixed, tmp_path)
    path = tmp_path / "early_items.parquet"
    for bit in range(0, 8 * path.stat().st_size, 997):
        flip(path, bit)
        with pytest.raises(StoreError, match=r"early_items\.parquet is damaged"):
            read(tmp_path)
        flip(path, bit)
    path.unlink()
    with pytest.raises(StoreError, match=r"early_items\.parquet is missing"):
        read(tmp_path)


def test_a_comparison_of_runs_names_the_place_where_early_methods_are_compared(mixed):
    found = compare(("a", mixed), ("a", mixed), ("mean", "max"))
    assert TASKS[0] not in {each.score for each in found.compared if each.retain == 0.5}
    (lacking,) = (each for each in found.not_compared if TASKS[0] in each.scores)
    assert lacking.reason == (
        "early in a, and only whole evaluations are compared here; its page and verdict.json"
        " compare early methods with each other"
    )
    told = to_json(boards(mixed))["budgets"]
    (budget,) = (own for own in told if own["retain"] == 0.5)
    pairs = [{own["first"], own["second"]} for own in budget["comparisons"] if own["early"]]
    assert {"mean", "max"} in pairs


def test_results_of_whole_evaluations_have_none(tmp_path):
    write(synthetic(failures=False), tmp_path)
    data = json.loads((tmp_path / "results.json").read_text())
    assert data["format"] == FORMAT
    assert all(cell["early"] == {} for cell in data["cells"])


def test_nothing_is_tested_of_early_figures_and_they_say_so(mixed, capsys):
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
    assert budget["early"]["mean"]["cloze-bible"][0] == "120 of 200 items"
    assert budget["early"]["random"]["cloze-bible"][0] == "1 of 6 masks early"
    assert json.dumps(to_json(run), allow_nan=False)
    html = to_html(run)
    assert "Early verdict:" in html
    assert "all items may change a verdict either way" in html
    show_standings(run)
    assert "all items may change a verdict either way" in capsys.readouterr().err
    assert "Figures from some of the items" in html
    table = ranked(mixed)
    at = table[table.retain == 0.5].set_index("method")
    assert not at.early["frequency"]


def test_tables_for_papers_have_a_sign_at_early_figures_and_one_footnote(mixed):
    run = boards(mixed)
    halves = [cell.early[TASKS[0]].half for cell in mixed.cells if cell.early]
    ends = f"{min(halves):.3f} to {max(halves):.3f}"
    of_score = run.groups[0].score.name
    for text, sign, spread, cell in (
        (to_latex(run), r"$^{\dagger}$", r"$\pm$", r"& (?:\\textbf{)?0\.\d{3}}?$"),
        (to_markdown(run), "†", "±", r"\| (?:\*\*)?0\.\d{3}(?:\*\*)?\xa0$"),
    ):
        table = text.replace(f"{sign}: early, an estimate", "")
        signed = table.split(sign)[:-1]
        # Of three methods both tasks and the mean of all; nothing else stands beside a figure.
        assert len(signed) == 3 * 3
        assert all(re.search(cell, before) for before in signed)
        assert f"{TASKS[0]} 120 of 200 items, {spread}{ends}; " in text
        assert f"; {of_score} {spread}0." in text
    plain = boards(synthetic(failures=False))
    assert "dagger" not in to_latex(plain)
    assert "†" not in to_markdown(plain)


def test_the_page_says_from_how_many_items_and_what_can_be_told_apart(mixed):
    run = dataclasses.replace(mixed.provenance.runs[0], goal=EarlyGoal(0.02, 3))
    goal = dataclasses.replace(mixed.provenance, runs=(run,))
    results = dataclasses.replace(mixed, provenance=goal)
    note = early_note(results, results.cells[0].model)
    halves = [
        (figure.high - figure.low) / 2 for cell in results.cells for figure in cell.early.values()
    ]
    count, every = 3 * len(TASKS), len(results.cells) * len(results.task_metrics)
    assert "asked for ±0.02 or 3 hours" in note
    assert f"{count} of {every} evaluations are estimated from 60\u00a0% of items" in note
    assert len(note) < 260
    ends = f"±{min(halves):.3f} to {max(halves):.3f}"
    assert f"By itself, each difference to unpruned is known to {ends}" in note
    (board,) = (own for own in boards(results).groups[0].boards if own.retain == 0.5)
    ranking, names = board.ranking, ("mean", "max")
    pairs = [
        found
        for other in ranking.ranked
        for name in names
        if (found := ranking.compare(name, other.label)) and (name, other.label) != names
    ]
    widths = sorted((own.high - own.low) / 2 for own in pairs)
    said = early_at(ranking)
    assert said.startswith(f"early: 2 of {len(ranking.ranked)} methods and random pruning; two")
    told_from = float(said.split("about ")[1].split()[0])
    assert told_from == pytest.approx(np.median(widths), abs=5e-4)
    assert early_note(synthetic(failures=False), results.cells[0].model) == ""


def test_means_over_seeds_count_early_ones(mixed):
    board = next(own for own in boards(mixed).groups[0].boards if own.retain == 0.5)
    rows = {row.head.text: row.cells for row in every_seed(board).rows}
    at, metric = list(mixed.task_metrics).index("cloze-bible") + 1, "acc_norm"
    seeds = [c for c in mixed.cells if (c.method, c.retain) == ("random", 0.5)]
    values = [
        c.early["cloze-bible"].figure if c.early else c.value("cloze-bible", metric) for c in seeds
    ]
    assert rows["random, seed 0"][at].details == ("early",)
    assert rows["random, seed 1"][at].details == ()
    assert float(rows["random, mean"][at].text) == pytest.approx(np.mean(values), abs=5e-4)


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
