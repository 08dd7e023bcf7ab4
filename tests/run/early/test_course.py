"""Runs that may end before every item: what they say is true, and later runs go on from there."""

import shutil

import pytest

from helpers.another_worker import AnotherWasQuicker
from helpers.no_room import no_room_for_masks
from helpers.tiny_suite import Watcher, plan_of, results_of
from mbench.core.early import EarlyGoal
from mbench.core.errors import MbenchError
from mbench.core.evaluation import Evaluation
from mbench.plan.cost import model_cost
from mbench.plan.needed import needed
from mbench.plan.speeds import Speeds, TaskSpeed
from mbench.report.statistics.boards import boards
from mbench.run.early.course import Early
from mbench.run.early.words import goal_of, in_words
from mbench.run.evaluation_stage import EvaluationStage
from mbench.run.runner import Runner
from mbench.storage.store import Store

SUITE = """\
name: tiny
models:
  demo: {plugin: demo, dtype: float32}
retain: [0.25, 0.75]
seeds: [0, 1]
corpora:
  bible: {source: {plugin: bible, split: calibration}, sequences: 6, length: 32}
methods:
  random:
  reap: {corpora: [bible]}
  mean: {corpora: [bible]}
perplexity:
  ppl-wiki:
    {source: {plugin: wiki, split: evaluation}, window: 64, stride: 32, max_windows: 4}
tasks:
  cloze_bible: {metric: acc, limit: 350}
"""


def run(plan, store, goal=None, progress=None):
    executor = None if goal is None else Early(plan, goal)
    return Runner(plan, store, progress or Watcher(), executor).run()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("early")


@pytest.fixture(scope="module")
def whole(folder):
    """A store of an ordinary run, and its outcome."""
    store = Store(folder / "whole")
    return store, run(plan_of(folder, store, SUITE), store)


@pytest.fixture(scope="module")
def early(folder, whole):
    """A store of a run that ended early, and its outcome; they are not changed."""
    store = Store(folder / "early")
    return store, run(plan_of(folder, store, SUITE), store, EarlyGoal(precision=0.06))


def files(store):
    return {path.name: path.read_bytes() for path in store.root.glob("evaluations/*")}


def value(evaluation: Evaluation, metric: str) -> float:
    return next(each.value for each in evaluation.metrics if each.name == metric)


def test_what_it_says_is_so(early, whole):
    _, outcome = early
    _, full = whole
    assert len(outcome.early) >= 4
    assert outcome.forward_tokens < 0.8 * full.forward_tokens
    assert outcome.evaluations.keys() | outcome.early.keys() == full.evaluations.keys()
    for key, figure in outcome.early.items():
        assert figure.ended == "precise"
        assert (figure.high - figure.low) / 2 <= 0.06
        truth = value(full.evaluations[key], "acc")
        unpruned = figure.figure - figure.difference
        assert figure.low <= truth - unpruned <= figure.high
        assert figure.items < figure.of == 350
        assert figure.look < figure.looks


def test_results_tell_what_is_early(early, folder):
    store, outcome = early
    results = results_of(plan_of(folder, store, SUITE), outcome)
    cells = results.cells
    assert cells[0].tasks["cloze_bible"].status == "ok"
    told = [cell for cell in cells if cell.early]
    assert told
    for cell in told:
        status = cell.tasks["cloze_bible"]
        assert status.status == "early"
        assert status.reason == in_words(cell.early["cloze_bible"])
        assert "cloze_bible" not in cell.evaluations
        # What it rests on are the items that come first in the order that the unpruned model has.
        design, own = cells[0].looked["cloze_bible"], cell.looked["cloze_bible"]
        first = design[design.look < cell.early["cloze_bible"].look]
        assert len(design) == 350
        assert len(own) == cell.early["cloze_bible"].items
        assert set(own["item"]) == set(first["item"])
        # A text of so few windows has no looks.
        assert cell.tasks["ppl-wiki"].status == "ok"
    # Methods are compared on the items that both have, about where their figures differ.
    (group,) = boards(results).groups
    by_task = [board.by_task["cloze_bible"] for board in group.boards]
    early = [own for ranking in by_task for own in ranking.comparisons.values() if own.early]
    assert early
    known = [own for own in early if "random masks" not in own.problem]
    assert known
    for own in known:
        assert not own.problem
        assert own.low < own.value < own.high < own.low + 0.4


def test_that_one_process_is_used_is_told(early, folder):
    watcher = Watcher()
    store = Store(shutil.copytree(early[0].root, folder / "two"))
    run(plan_of(folder, store, SUITE + "processes: 2\n"), store, EarlyGoal(0.06), watcher)
    assert any("in one process, not in 2" in text for text in watcher.warnings)


def test_the_same_again_computes_nothing(early, folder):
    store, outcome = early
    before = files(store)
    again = run(plan_of(folder, store, SUITE), store, EarlyGoal(precision=0.06))
    assert again.forward_tokens == 0
    assert again.early == outcome.early
    assert files(store) == before


def test_what_it_evaluated_is_needed_by_its_suite(early, folder):
    store, outcome = early
    looks = len(files(store)) - len(outcome.evaluations)
    assert looks == sum(figure.look for figure in outcome.early.values())
    keys = needed(plan_of(folder, store, SUITE), store)
    kept = {f"{key.digest}.parquet" for key in keys if key.kind == "evaluations"}
    assert files(store).keys() <= kept


def test_what_was_evaluated_costs_nothing_again(early, folder):
    store, outcome = early
    plan = plan_of(folder, store, SUITE)
    (model,) = plan.models
    digests = [plan.task_size_key(model, task).digest for task in plan.tasks]
    speeds = Speeds(tasks=dict.fromkeys(digests, TaskSpeed(1.0)))
    cost = model_cost(plan, store, model, speeds)
    assert cost.evaluations_begun == len(outcome.early)
    assert cost.seconds == pytest.approx(cost.evaluation_tokens)


def test_a_mask_that_fails_at_a_later_look_has_failed(folder, tmp_path, monkeypatch):
    look = EvaluationStage.look

    def fail(stage, masked, task, number):
        if number:
            raise ValueError("broken")
        return look(stage, masked, task, number)

    monkeypatch.setattr(EvaluationStage, "look", fail)
    store = Store(tmp_path)
    plan = plan_of(folder, store, SUITE)
    outcome = run(plan, store, EarlyGoal(precision=1e-4))
    assert outcome.early
    cells = results_of(plan, outcome).cells[1:]
    assert not any(cell.early for cell in cells)
    assert {cell.tasks["cloze_bible"].status for cell in cells} == {"failed"}


@pytest.mark.parametrize("goal", [None, EarlyGoal(precision=0.03), EarlyGoal(hours=1.0)])
def test_later_runs_end_at_the_figures_of_an_ordinary_run(goal, early, whole, folder, tmp_path):
    copied = Store(shutil.copytree(early[0].root, tmp_path / "store"))
    plan = plan_of(folder, copied, SUITE)
    if goal is not None:
        run(plan, copied, goal)
    outcome = run(plan, copied)
    assert not outcome.early
    assert files(copied) == files(whole[0])


def test_looks_that_were_there_are_not_counted_whoever_does_the_rest(early, folder, tmp_path):
    counted = []
    for name in ("alone", "shared"):
        store = Store(shutil.copytree(early[0].root, tmp_path / name))
        plan = plan_of(folder, store, SUITE)
        executor = AnotherWasQuicker(plan, store) if name == "shared" else None
        watcher = Watcher()
        outcome = Runner(plan, store, watcher, executor).run()
        counted.append((outcome.forward_tokens, watcher.tokens))
    assert counted[0] == counted[1]
    assert 0 < counted[0][0] < counted[0][1]


def test_hours_look_at_all_masks_first_and_leave_those_that_are_told_apart(whole, folder, tmp_path):
    store = Store(tmp_path)
    outcome = run(plan_of(folder, store, SUITE), store, EarlyGoal(hours=1.0))
    full = whole[1].evaluations
    assert outcome.evaluations.keys() | outcome.early.keys() == full.keys()
    for key, figure in outcome.early.items():
        assert figure.ended in ("settled", "hopeless")
        truth = value(full[key], "acc") - (figure.figure - figure.difference)
        assert figure.low <= truth <= figure.high


def test_when_the_hours_are_over_nothing_begins(folder, tmp_path):
    store = Store(tmp_path)
    plan = plan_of(folder, store, SUITE)
    outcome = run(plan, store, EarlyGoal(hours=1e-6))
    assert not outcome.evaluations
    cells = results_of(plan, outcome).cells
    statuses = {status for cell in cells for status in cell.tasks.values()}
    assert {(each.status, each.reason) for each in statuses} == {
        ("interrupted", "the hours were over before this: run it again to go on")
    }


def test_looks_that_were_made_outlive_an_interruption(whole, folder, tmp_path):
    store = Store(tmp_path)
    plan = plan_of(folder, store, SUITE)
    tokens = whole[1].forward_tokens
    stopped = run(plan, store, EarlyGoal(hours=1.0), Watcher(interrupt_after=tokens // 2))
    assert stopped.interrupted
    assert stopped.early
    rest = run(plan, store)
    assert stopped.forward_tokens + rest.forward_tokens < 1.1 * tokens
    assert files(store) == files(whole[0])


def test_a_task_that_the_unpruned_model_fails_on_is_told(folder, tmp_path, monkeypatch):
    from mbench.evaluate.lm_eval.prepared_task import PreparedTask

    def fail(*_, **__):
        raise ValueError("broken")

    monkeypatch.setattr(PreparedTask, "join", fail)
    store = Store(tmp_path)
    plan = plan_of(folder, store, SUITE)
    cells = results_of(plan, run(plan, store, EarlyGoal(precision=0.06))).cells
    reasons = {cell.tasks["cloze_bible"].reason for cell in cells}
    assert any("broken" in reason for reason in reasons)
    assert "the unpruned model has no outcome to compare with" in reasons
    assert all(cell.tasks["ppl-wiki"].status == "ok" for cell in cells)


@pytest.mark.parametrize("goal", [EarlyGoal(precision=0.06), EarlyGoal(hours=1.0)])
def test_a_mask_that_cannot_be_applied_fails_alone(goal, folder, tmp_path, monkeypatch):
    store = Store(tmp_path)
    plan = plan_of(folder, store, SUITE)
    no_room_for_masks(monkeypatch)
    cells = results_of(plan, run(plan, store, goal)).cells
    unpruned, *pruned = ({own.status for own in cell.tasks.values()} for cell in cells)
    assert unpruned == {"ok"}
    assert pruned
    assert all(statuses == {"failed"} for statuses in pruned)


@pytest.mark.parametrize("wrong", [0.0, -1.0, float("nan"), float("inf"), "1", True])
def test_goals_are_positive_numbers(wrong):
    with pytest.raises(MbenchError, match="precision takes a number above 0"):
        goal_of(wrong, None)
    with pytest.raises(MbenchError, match="hours takes a number above 0"):
        goal_of(None, wrong)


def test_a_precision_of_percents_is_refused():
    with pytest.raises(MbenchError, match="precision takes a number below 1, got 3"):
        goal_of(3, None)


def test_without_options_there_is_no_goal():
    assert goal_of(None, None) is None
    assert goal_of(0.01, 2) == EarlyGoal(0.01, 2)
