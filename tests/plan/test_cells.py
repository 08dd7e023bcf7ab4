"""Plans: what keys depend on, and which suites are impossible."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from helpers.tiny_suite import SUITE, go, plan_of
from mbench.core.errors import MbenchError, UnsupportedModel
from mbench.core.interfaces import ExpertMask
from mbench.plan.models import find_model
from mbench.run.mask_maker import MaskMaker


def test_the_seed_is_part_of_a_key_only_where_it_matters(tmp_path, store):
    plan = plan_of(tmp_path, store)
    other = plan_of(tmp_path, store, set_values=["seeds=[5, 6]"])
    keys = [{cell.method.name: cell.mask_key for cell in p.cells} for p in (plan, other)]
    changed = {name for name in keys[0] if keys[0][name] != keys[1][name]}
    assert changed == {"random"}


def test_keys_ignore_order_and_batch_size_and_notice_what_matters(tmp_path, store):
    keys = {cell.label: cell.mask_key for cell in plan_of(tmp_path, store).cells}

    def changed(text: str = SUITE, **narrowing) -> set[str]:
        other = {c.label: c.mask_key for c in plan_of(tmp_path, store, text, **narrowing).cells}
        return {label.partition(", ")[2] for label in keys if other.get(label, "") != keys[label]}

    lines = SUITE.replace("  reap: {corpora: [bible]}\n", "").replace(
        "methods:\n", "methods:\n  reap: {corpora: [bible]}\n"
    )
    assert changed(lines) == set()
    assert changed(set_values=["batch_tokens=100"]) == set()
    bible = {"reap", "same-as-reap", "tb-coverage"}
    assert changed(set_values=["corpora.bible.seed=1"]) == bible
    assert changed(set_values=["calibration=[wiki, bible]"]) == {"tb-coverage"}
    assert len(changed(set_values=["router=preserved"])) == 6
    assert changed(set_values=["methods.expert-sparsity.scorer.tokens=99"]) == {
        "expert-sparsity",
        "tb-coverage",
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("tasks={hellaswagg: {}}", "unknown lm-eval task, group or tag 'hellaswagg'; did you"),
        ("methods.random.corpora=[wiki]", "looks at no text: it takes no corpora"),
        (
            "methods.reap.candidate=random",
            "a candidate that its builder 'as-selected' does not use",
        ),
        ("methods.tb-coverage.selector.protected=true", "protected: input should be a valid int"),
        ("corpora.bible.source.split=foo", "unknown split 'foo'"),
        ("retain=[0.01]", "keeps none; the least is 0.0416667"),
        ("models.demo.plugin=dmo", "unknown plugin model 'dmo'; did you mean 'demo'?"),
        ("methods.reap.scorer=repa", "unknown scorer 'repa'; did you mean 'reap'?"),
        ("methods.reap.scorer.varian=sum", "unknown parameter of scorer 'reap' 'varian'"),
        ("methods.reap.scorer.variant=most", "variant: input should be 'mean', 'sum'"),
        ("methods.tb-coverage.candidate=tb-coverage", "candidates form a cycle"),
        ("methods.reap.seeds=[1]", "draws nothing at random"),
        ("methods.reap.corpora=[bible, wiki]", "takes 1 calibration corpus, got 2"),
        ("methods.tb-coverage.candidate=random", "a candidate must be deterministic"),
        ("corpora.bible.source.plugin=koran", "unknown plugin corpus 'koran'"),
        ("models.demo={path: /nowhere}", "/nowhere"),
        ("models.demo={plugin: demo, expect: {layers: 4, experts: 60, top_k: 4}}", "experts = 24"),
    ],
)
def test_impossible_suites_fail_before_any_model_is_loaded(tmp_path, store, change, message):
    with pytest.raises(MbenchError) as caught:
        plan_of(tmp_path, store, set_values=[change])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_corpus_that_is_too_short_says_how_much_there_is(tmp_path, store):
    (tmp_path / "short.txt").write_text("a few words only " * 30)
    change = f"corpora.bible.source={{files: [{tmp_path}/short.txt]}}"
    plan = plan_of(tmp_path, store, set_values=[change])
    outcome, _ = go(plan, store)
    problems = {key.label: problem for key, problem in outcome.mask_problems.items()}
    problem = problems["demo 50 % pruned, reap"]
    assert problem.status == "blocked"
    assert "6 sequences of 32 tokens (192), but the text has" in problem.reason
    assert "demo 50 % pruned, expert-sparsity" not in problems


def test_a_cell_is_named_by_everything_that_distinguishes_it(tmp_path, store):
    labels = [cell.label for cell in plan_of(tmp_path, store).cells]
    assert len(set(labels)) == len(labels)
    assert "demo 75 % pruned, random seed 1" in labels


def test_narrowing_keeps_the_suites_candidates(tmp_path, store):
    plan = plan_of(tmp_path, store, methods=["tb-coverage"])
    whole = {cell.label: cell.mask_key for cell in plan_of(tmp_path, store).cells}
    assert {cell.method.name for cell in plan.cells if cell.method.evaluated} == {"tb-coverage"}
    assert {cell.method.name for cell in plan.cells} == {"tb-coverage", "expert-sparsity"}
    # The candidate is the suite's own, so it is the same mask as in a whole run.
    assert all(whole[cell.label] == cell.mask_key for cell in plan.cells)
    change = "methods.expert-sparsity.scorer.tokns=3"
    with pytest.raises(MbenchError, match="'tokns'; did you mean 'tokens'"):
        plan_of(tmp_path, store, methods=["tb-coverage"], set_values=[change])


def limited_to_groups(monkeypatch, fewest=1):
    def find(*args):
        model = find_model(*args)
        facts = dataclasses.replace(model.facts, groups=4, fewest_experts=fewest)
        return dataclasses.replace(model, facts=facts)

    monkeypatch.setattr("mbench.plan.plan.find_model", find)


def no_probe(cell):
    raise AssertionError("no method here searches")


def test_a_router_limited_to_groups_is_told_of_and_refuses_uneven_masks_once_made(
    tmp_path, store, monkeypatch
):
    limited_to_groups(monkeypatch)
    plan = plan_of(tmp_path, store, methods=["random"], set_values=["retain=[0.5]"])
    cell = plan.cells[0]
    assert cell.notes[0].endswith("a mask that does not keep 3 in each of 4 fails when it is made")
    model = plan.models[0]
    maker = MaskMaker(model, store, 0, no_probe)
    with pytest.raises(UnsupportedModel, match=r"needs as many in each.*\[.*\] in layer"):
        maker.make(cell, None)
    even = np.zeros((len(model.facts.layers), 24), dtype=bool)
    even[:, ::2] = True
    monkeypatch.setattr(type(cell.method.builder), "build", lambda *_: ExpertMask(even))
    assert (maker.make(cell, None).mask.keep == even).all()


@pytest.mark.parametrize(("retain", "fewest"), [(0.5, 16), (0.25, 4)])
def test_budgets_that_no_mask_can_meet_are_refused(tmp_path, store, monkeypatch, retain, fewest):
    limited_to_groups(monkeypatch, fewest)
    message = f"whose router needs at least {fewest}, in 4 groups of equally many"
    with pytest.raises(MbenchError, match=message):
        plan_of(tmp_path, store, set_values=[f"retain=[{retain}]"])
