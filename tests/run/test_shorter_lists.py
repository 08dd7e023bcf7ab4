"""A method may name its own tasks: only these are planned, evaluated and expected of it."""

import pytest

from helpers.tiny_suite import SUITE, Watcher, go, plan_of, results_of
from mbench.core.errors import SuiteError
from mbench.plan.cost import model_cost
from mbench.plan.detectable import comparisons_of, detectable
from mbench.report.statistics.boards import boards
from mbench.storage.store import Store

SHORT = SUITE.replace("retain: [0.25, 0.5]", "retain: [0.5]")
SHORTER = SHORT.replace("  random:\n", "  random: {tasks: [ppl-wiki]}\n")


def test_random_pruning_is_evaluated_on_its_own_tasks_alone(tmp_path):
    store = Store(tmp_path / "store")
    plan = plan_of(tmp_path, store, SHORTER)
    cost = model_cost(plan, store, plan.models[0])
    every = model_cost(plan_of(tmp_path, store, SHORT), store, plan.models[0])
    random = sum(cell.method.name == "random" for cell in plan.cells)
    assert every.evaluations - cost.evaluations == random
    watcher = Watcher()
    outcome, table = go(plan, store, watcher)
    asked = {task for mask, task in watcher.evaluated if "random" in mask}
    assert asked == {"ppl-wiki"}
    of_random = table[table.method == "random"]
    assert set(of_random[of_random.task == "cloze_bible"].status) == {"left out"}
    assert set(of_random[of_random.task == "ppl-wiki"].status) == {"ok"}
    others = table[table.method != "random"]
    assert set(others.status) == {"ok"}
    assert outcome.made_evaluations == len(set(watcher.evaluated))
    left = model_cost(plan, store, plan.models[0])
    assert left.evaluations == left.evaluations_cached
    # The mean over tasks lacks random pruning, by name; its own task has it.
    run = boards(results_of(plan, outcome))
    board = run.groups[0].boards[0]
    assert board.by_task["cloze_bible"].random is None
    assert board.by_task["ppl-wiki"].random is not None
    # A plan counts the comparisons of those that a report has on a task.
    for row in detectable(plan, store):
        if row.name in board.by_task:
            ranking = board.by_task[row.name]
            methods = sum(len(own.names) for own in ranking.ranked)
            has_random = ranking.random is not None
            assert row.comparisons == comparisons_of(methods, random=has_random)
            assert (row.least["random"] is None) or has_random


def test_a_task_that_the_suite_lacks_is_refused_at_its_line(tmp_path):
    text = SUITE.replace("  random:\n", "  random: {tasks: [ppl-wiky]}\n")
    with pytest.raises(SuiteError, match=r"unknown task 'ppl-wiky'; did you mean 'ppl-wiki'"):
        plan_of(tmp_path, Store(tmp_path / "store"), text)
