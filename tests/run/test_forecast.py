import itertools

import pytest

from helpers.no_room import no_room_for_masks
from helpers.tiny_suite import Watcher, go, plan_of, results_of
from mbench.plan.cost import estimate, model_cost
from mbench.plan.speeds import read_speeds
from mbench.run import forecast
from mbench.run.evaluation_stage import EvaluationStage
from mbench.run.forecast import masks_drawn, measure
from mbench.run.progress import Progress
from mbench.run.session import ModelSession, Outcome


def test_a_run_forecasts_itself_and_its_speeds_price_the_next_plan(tmp_path, store):
    plan = plan_of(tmp_path, store)
    assumed = estimate(plan, store).models[0]
    assert not assumed.speed_measured
    outcome, _ = go(plan, store)
    # Too short for measuring beforehand: once, when a mask of each budget is done.
    (made,) = outcome.forecasts
    assert made.model == plan.models[0].name
    assert made.seconds > 0
    assert made.took is not None
    cost = results_of(plan, outcome).provenance.runs[0].cost
    assert cost.forecasts == (made,)

    speeds = read_speeds(store, plan.models[0].identity)
    assert len(speeds.tasks) == len(plan.tasks)
    assert speeds.load > 0
    assert speeds.profile > 0
    # A mask that another method has made already takes no time.
    assert {cell.method.name for cell in plan.cells} - set(speeds.masks) == {"same-as-reap"}
    # What is done costs nothing; what another suite would add costs what it took here.
    assert estimate(plan, store).models[0].seconds == 0
    more = plan_of(tmp_path, store, retain=[0.125])
    cost = estimate(more, store).models[0]
    assert cost.speed_measured
    of_a_mask = sum(
        speeds.tasks[more.task_size_key(more.models[0], task).digest].read * size
        for task, size in zip(more.tasks, sizes(more, store), strict=True)
    )
    masks = sum(speeds.masks.get(cell.method.name, 0) for cell in more.cells)
    left = cost.evaluations - cost.evaluations_cached
    assert cost.seconds == pytest.approx(
        left / len(more.tasks) * of_a_mask + masks + speeds.load, rel=1e-6
    )


def sizes(plan, store):
    keys = (plan.task_size_key(plan.models[0], task) for task in plan.tasks)
    return [store.read_json(key)["tokens"] for key in keys]


def test_every_task_is_measured_within_its_time_and_nothing_is_stored(tmp_path, store):
    plan = plan_of(tmp_path, store)
    session = ModelSession(plan, plan.models[0], store, Progress(), Outcome())
    stage = EvaluationStage(session)
    stage.tasks.prepare(plan.tasks)
    masks = masks_drawn(session)
    assert [mask.keep.sum(1).tolist() for mask in masks] == [
        [budget.kept] * budget.num_layers for budget in {c.budget: 0 for c in plan.cells}
    ]
    measure(session, stage, plan.tasks, masks, budget=0.3)
    speeds = session.speeds.speeds()
    for task in plan.tasks:
        speed = speeds.tasks[plan.task_size_key(plan.models[0], task).digest]
        assert 0 < speed.read < 1
    assert session.outcome.forward_tokens > 0
    assert not session.outcome.evaluations
    pending = stage.pending()
    assert {task.name for item in pending for task in item.tasks} == {t.name for t in plan.tasks}
    assert model_cost(plan, store, plan.models[0], speeds).speed_measured is False  # no profile


def test_a_run_measures_what_is_not_known_before_its_first_forecast(tmp_path, store, monkeypatch):
    monkeypatch.setattr(forecast, "SHORTEST", 0.0)
    said = []
    monkeypatch.setattr(Watcher, "stage", lambda _, text: said.append(text))
    plan = plan_of(tmp_path, store)
    outcome, _ = go(plan, store, Watcher())
    assert said.count("measure speed") == 1
    # At first of every cell, then of as many masks as methods have made, then of what was left.
    first, *others = outcome.forecasts
    assert first.evaluations == (1 + len(plan.cells)) * len(plan.tasks)
    assert first.evaluations > others[0].evaluations > others[1].evaluations
    assert all(each.seconds > 0 for each in outcome.forecasts)
    # What was measured serves the next run, which has its forecast at once.
    go(plan_of(tmp_path, store, retain=[0.125, 0.75]), store, Watcher())
    assert said.count("measure speed") == 1


def test_a_mask_that_cannot_be_applied_is_left_unmeasured(tmp_path, store, monkeypatch):
    plan = plan_of(tmp_path, store, retain=[0.5])
    session = ModelSession(plan, plan.models[0], store, Progress(), Outcome())
    stage = EvaluationStage(session)
    stage.tasks.prepare(plan.tasks)
    no_room_for_masks(monkeypatch)
    measure(session, stage, plan.tasks, masks_drawn(session), budget=0.3)
    assert not session.speeds.speeds().tasks


def test_a_forecast_is_made_again_when_methods_agree_and_when_each_budget_was_seen(tmp_path, store):
    go(plan_of(tmp_path, store), store)
    more = plan_of(tmp_path, store, retain=[0.125, 0.75])
    watcher = Watcher()
    outcome, _ = go(more, store, watcher)
    # 6 cells a budget, some of which have one mask, on 2 tasks; the unpruned model is stored.
    masks = list(dict.fromkeys(mask for mask, _ in watcher.evaluated))
    assert len(masks) <= 10
    evaluations = [made.evaluations for made in outcome.forecasts]
    assert evaluations == [24, 2 * len(masks), 2 * (len(masks) - 2)]
    assert all(a.took > b.took for a, b in itertools.pairwise(outcome.forecasts))
    assert [mask.split(",")[0] for mask in masks[:2]] == ["demo 87.5 % pruned", "demo 25 % pruned"]
