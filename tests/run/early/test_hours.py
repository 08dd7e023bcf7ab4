"""Hours on a clock of its own, on which every forward token takes a second."""

import json
import math
import re
import time
from collections import Counter
from dataclasses import replace

import pytest

from helpers.pruned_by_hand import write_pruned
from helpers.tiny_suite import Watcher, plan_of, results_of
from mbench.core.early import NOT_FINITE, EarlyGoal
from mbench.core.savings import Footprint, Spread
from mbench.evaluate.lm_eval.prepared_task import PreparedTask
from mbench.report.page.leaderboard_data import leaderboard_data
from mbench.report.statistics.boards import boards
from mbench.run import footprint
from mbench.run.early.course import Early
from mbench.run.early.hours import by_turns
from mbench.run.runner import Runner
from mbench.storage.store import Store

SUITE = """\
name: tiny
models:
  demo: {plugin: demo, dtype: float32}
retain: [0.25, 0.5, 0.75]
seeds: [0, 1]
corpora:
  bible: {source: {plugin: bible, split: calibration}, sequences: 6, length: 32}
  wiki: {source: {plugin: wiki, split: calibration}, sequences: 6, length: 32}
methods:
  random:
  reap: {corpora: [bible]}
  reap-wiki: {use: reap, corpora: [wiki]}
tasks:
  cloze_bible: {metric: acc, limit: 200}
"""
EFFICIENCY = "efficiency: {prompt_tokens: 16, new_tokens: 2, repetitions: 3}\n"
PROFILE = 2 * 6 * 32


class Clock(Watcher):
    """A second for each forward token, and some for each mask."""

    def __init__(self, monkeypatch, mask_seconds):
        super().__init__()
        self.mask_seconds, self.masks = mask_seconds, 0
        for name in ("monotonic", "perf_counter"):
            monkeypatch.setattr(time, name, lambda: 1e6 + self.seconds)

    @property
    def seconds(self):
        return self.tokens + self.masks * self.mask_seconds

    def stage(self, text):
        self.masks += text.startswith("mask ")


def run(folder, store, monkeypatch, tokens=None, mask_seconds=0, text=SUITE):
    """With hours for so many tokens; gives the results and the clock."""
    clock, plan = Clock(monkeypatch, mask_seconds), plan_of(folder, store, text)
    executor = None if tokens is None else Early(plan, EarlyGoal(hours=tokens / 3600))
    runner = Runner(plan, store, clock, executor)
    runner.outcome.begun = time.monotonic()
    outcome = runner.run()
    return results_of(plan, outcome), clock


def with_other(text):
    """The suite with a second model."""
    model = "  demo: {plugin: demo, dtype: float32}\n"
    other = model.replace("demo:", "other:").replace("float32", "bfloat16")
    return text.replace(model, model + other)


def seconds_at(said, monkeypatch):
    """A list that gets the clock's seconds whenever this stage begins."""
    turns, stage = [], Clock.stage

    def noted(clock, told):
        if told == said:
            turns.append(clock.seconds)
        stage(clock, told)

    monkeypatch.setattr(Clock, "stage", noted)
    return turns


def savings_take(seconds, monkeypatch):
    """Have each measurement of what pruning saves take so long; gives the stages that begin."""
    said, stage = [], Clock.stage

    def noted(clock, told):
        said.append(told)
        clock.tokens += seconds * told.endswith(" efficiency")
        stage(clock, told)

    of_none = Footprint(1, 1, 1, 1, Spread(1, 1, 1), Spread(1, 1, 1))
    monkeypatch.setattr(Clock, "stage", noted)
    monkeypatch.setattr(footprint, "compare", lambda *_: (of_none, of_none, "not counted"))
    return said


def looks(results):
    """(method, seed, retain) -> looks at the task."""
    made = {}
    for cell in results.cells[1:]:
        early = cell.early.get("cloze_bible")
        made[cell.method, cell.seed, cell.retain] = (
            early.look if early else 2 * ("cloze_bible" in cell.evaluations)
        )
    return made


def files(store):
    return {path.name: path.read_bytes() for path in store.root.glob("evaluations/*")}


@pytest.fixture(scope="module")
def sizes(tmp_path_factory):
    """A store of an ordinary run, and its tokens."""
    folder = tmp_path_factory.mktemp("sizes")
    store = Store(folder / "store")
    with pytest.MonkeyPatch.context() as patch:
        results, clock = run(folder, store, patch)
    assert len(results.cells) == 13
    return store, clock.tokens


@pytest.mark.parametrize("masks", [1, 4, 7, 11])
def test_too_few_hours_leave_out_no_budget(masks, sizes, tmp_path, monkeypatch):
    one = (sizes[1] - PROFILE) // 13
    # Of 200 items, 120 are the first look: 0.6 of a mask, give or take.
    hours = PROFILE + one + round((masks + 0.5) * 0.6 * one)
    results, clock = run(tmp_path, Store(tmp_path / "store"), monkeypatch, hours)
    made = looks(results)
    assert clock.tokens <= hours
    assert set(made.values()) == {0, 1}
    assert abs(sum(made.values()) - masks) <= 1
    # Budgets differ by one look at most, and no method has another seed before all have one.
    by_budget = Counter({0.25: 0, 0.5: 0, 0.75: 0})
    by_budget.update(retain for (_, _, retain), count in made.items() if count)
    assert max(by_budget.values()) - min(by_budget.values()) <= 1
    if any(made["random", 1, retain] for retain in by_budget):
        assert all(count for (_, seed, _), count in made.items() if seed != 1)
    assert any("some will have none" in text for text in clock.warnings)


def test_hours_too_few_for_the_unpruned_model_are_kept_and_told(sizes, tmp_path, monkeypatch):
    one = (sizes[1] - PROFILE) // 13
    store = Store(tmp_path / "store")
    results, clock = run(tmp_path, store, monkeypatch, PROFILE + 0.9 * one)
    # A first look was made, and stored; the second would not have ended in time.
    assert PROFILE < clock.tokens < PROFILE + 0.9 * one
    full, *others = results.cells
    left = PROFILE + one - clock.tokens
    said = re.search("takes about ([0-9.]+) hours more", full.tasks["cloze_bible"].reason)
    assert float(said[1]) == pytest.approx(left / 3600, rel=0.05)
    assert {cell.tasks["cloze_bible"].reason for cell in others} == {
        "the hours were over before the unpruned model was evaluated: run it again"
    }
    # The same again goes on, with no more hours, and a later run ends at the ordinary figures.
    for made in (0, 1):
        results, clock = run(tmp_path, store, monkeypatch, PROFILE + 0.9 * one)
        assert 0 < clock.tokens < PROFILE + 0.9 * one
        assert results.cells[0].tasks["cloze_bible"].status == "ok"
        assert sum(map(bool, looks(results).values())) >= made
    run(tmp_path, store, monkeypatch)
    assert files(store) == files(sizes[0])


def test_masks_that_take_long_leave_half_of_the_hours(sizes, tmp_path, monkeypatch):
    one = (sizes[1] - PROFILE) // 13
    hours, store = 8 * one, Store(tmp_path / "store")
    results, clock = run(tmp_path, store, monkeypatch, hours, mask_seconds=one // 2 + 1)
    assert clock.seconds <= hours
    # Half of eight are four, in which eight masks begin.
    made = [cell for cell in results.cells[1:] if cell.status == "ok"]
    assert len(made) == 8
    assert {cell.retain for cell in made} == {0.25, 0.5, 0.75}
    assert {(cell.method, cell.seed) for cell in made} == {
        ("random", 0),
        ("reap", None),
        ("reap-wiki", None),
    }
    assert sum(map(bool, looks(results).values())) >= 3
    left = [cell for cell in results.cells[1:] if cell.status != "ok"]
    assert {cell.reason for cell in left} == {
        "the hours were over before this: run it again to go on"
    }


def test_models_get_equal_parts_however_long_their_masks_take(sizes, tmp_path, monkeypatch):
    one = (sizes[1] - PROFILE) // 13
    hours, turns = 14 * one, seconds_at("load other", monkeypatch)
    store, text = Store(tmp_path / "store"), with_other(SUITE)
    results, clock = run(tmp_path, store, monkeypatch, hours, one // 2 + 1, text)
    assert clock.seconds <= hours
    assert hours / 2 - one < turns[0] <= hours / 2
    seen = Counter(cell.model for cell in results.cells[1:] if cell.early)
    assert abs(seen["demo"] - seen["other"]) <= 1
    assert min(seen["demo"], seen["other"]) >= 2


def test_a_checkpoint_that_is_no_mask_has_its_time_in_that_of_its_model(
    sizes, tmp_path, monkeypatch
):
    def louder(tensors):
        for name in tensors:
            if name.endswith("mlp.gate.weight"):
                tensors[name] = tensors[name] * 1.5

    pruned = write_pruned(tmp_path / "pruned", [range(12)] * 4, louder)
    text = with_other(SUITE).replace(
        "  random:\n", f"  random:\n  imported: {{checkpoint: {pruned}, model: demo}}\n"
    )
    one = (sizes[1] - PROFILE) // 13
    hours, turns = 11 * one, seconds_at("load other", monkeypatch)
    results, clock = run(tmp_path, Store(tmp_path / "store"), monkeypatch, hours, text=text)
    assert clock.seconds <= hours
    assert hours / 2 - one < turns[0] <= hours / 2
    (cell,) = (cell for cell in results.cells if cell.method == "imported")
    assert cell.tasks["cloze_bible"].status == "ok"
    assert not cell.published.same_as_mask


@pytest.mark.parametrize(("tenths", "before"), [(1, 3), (10, 1)])
def test_what_pruning_saves_is_measured_within_the_hours(
    tenths, before, sizes, tmp_path, monkeypatch
):
    one = (sizes[1] - PROFILE) // 13
    text, said = SUITE + EFFICIENCY, savings_take(tenths * one // 10, monkeypatch)
    store = Store(tmp_path / "store")
    results, clock = run(tmp_path, store, monkeypatch, 6 * one, text=text)
    assert clock.seconds <= 6 * one
    assert [saving.status for saving in results.efficiency] == [
        *before * ["ok"],
        *(3 - before) * ["interrupted"],
    ]
    late = "the hours were over before this: run it again to go on"
    assert [s.reason for s in results.efficiency] == [*before * [""], *(3 - before) * [late]]
    assert sum(map(bool, looks(results).values())) >= 3
    # With hours to spare the rest is measured once all masks are.
    first = said.copy()
    said.clear()
    results, clock = run(tmp_path, store, monkeypatch, 40 * one, text=text)
    assert [saving.status for saving in results.efficiency] == 3 * ["ok"]
    measured = [told for told in (*first, *said) if told.endswith(" efficiency")]
    assert len(measured) == len(set(measured)) == 3


def test_what_one_model_had_no_time_for_is_told_beside_what_the_next_saves(
    sizes, tmp_path, monkeypatch
):
    one = (sizes[1] - PROFILE) // 13
    savings_take(one, monkeypatch)
    text, store = with_other(SUITE) + EFFICIENCY, Store(tmp_path / "store")
    results, _ = run(tmp_path, store, monkeypatch, 12 * one, text=text)
    told = [(saving.model, saving.retain, saving.status) for saving in results.efficiency]
    assert told == [
        (model, retain, "ok" if retain == 0.25 else "interrupted")
        for model in ("demo", "other")
        for retain in (0.25, 0.5, 0.75)
    ]


def test_turns_keep_candidates_first_and_searches_last(tmp_path):
    text = SUITE.replace(
        "  random:\n",
        "  sampled-shapley: {corpora: [bible], seeds: [0]}\n"
        "  reap-guarded: {corpora: [bible]}\n"
        "  tb-coverage: {selector: {protected: 5}, corpora: [bible, wiki]}\n"
        "  random:\n",
    ).replace("methods:", "candidates:\n  expert-sparsity: {corpora: [wiki]}\nmethods:")
    cells = plan_of(tmp_path, Store(tmp_path / "store"), text).cells
    turns = by_turns(cells)
    assert {cell.key for cell in turns} == {cell.key for cell in cells}
    assert [cell.budget.retain for cell in turns] == len(turns) // 3 * [0.25, 0.5, 0.75]
    methods = [cell.method.name for cell in turns][::3]
    assert methods[-2:] == ["random", "sampled-shapley"]
    made = set()
    for cell in turns:
        assert cell.candidate is None or cell.candidate in made
        made.add(cell.mask_key)
    assert any(cell.candidate for cell in turns)


def test_what_cannot_be_computed_is_not_told_as_too_few_items(sizes, tmp_path, monkeypatch):
    calls, evaluate = [], PreparedTask.evaluate

    def lose_one(self, *args, **kwargs):
        found = evaluate(self, *args, **kwargs)
        calls.append(None)
        if len(calls) != 6:  # after two of the unpruned model, and random pruning at each budget
            return found
        items = found.items.copy()
        items.loc[0, "acc"] = math.nan
        return replace(found, items=items)

    monkeypatch.setattr(PreparedTask, "evaluate", lose_one)
    one = (sizes[1] - PROFILE) // 13
    hours = PROFILE + one + round(6.5 * 0.6 * one)
    results, _ = run(tmp_path, Store(tmp_path / "store"), monkeypatch, hours)
    (cell,) = (cell for cell in results.cells if any(e.untold for e in cell.early.values()))
    assert cell.tasks["cloze_bible"].reason == f"after 120 of 200 items: {NOT_FINITE}"
    assert sum(bool(cell.early) for cell in results.cells) > 2
    page = json.dumps(leaderboard_data(boards(results)))
    assert f"early: {NOT_FINITE}" in page
    assert "too few items" not in page
