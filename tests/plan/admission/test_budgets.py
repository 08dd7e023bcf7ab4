"""Budgets at which a token gets fewer experts than in the full model, or that are the same."""

from __future__ import annotations

import pytest

from helpers.tiny_models import mixtral, olmoe, save
from helpers.tiny_suite import SUITE, plan_of
from mbench.plan.admission.budgets import budget_findings

BUDGETS = "[0.05, 0.25, 0.26, 0.5]"


def notes(tmp_path, store, suite=SUITE, **narrowing):
    plan = plan_of(tmp_path, store, suite.replace("[0.25, 0.5]", BUDGETS), **narrowing)
    (facts,) = (model.facts for model in plan.models)
    found = list(budget_findings(plan))
    assert all(finding.level == "note" for finding in found)
    return facts, [(finding.name, finding.fact, finding.words) for finding in found]


def test_budgets_below_the_models_top_k_or_of_equal_size_are_noted(tmp_path, store):
    facts, found = notes(tmp_path, store)
    assert facts.top_k == 2
    assert facts.num_experts == 24
    assert [(name, fact) for name, fact, _ in found] == [
        ("0.05", "experts per token"),
        ("0.26", "experts kept"),
    ]
    assert found[1][2] == "keeps 6 of 24 experts, as 0.25 does"


@pytest.mark.parametrize(
    ("family", "router", "gates"),
    [
        (mixtral, "sliced", "they sum up to what they did before"),
        (mixtral, "preserved", "they sum up to what they did before"),
        (olmoe, "sliced", "their softmax is over fewer experts"),
        (olmoe, "preserved", "what 1 more added is missing"),
    ],
)
def test_what_becomes_of_gates_is_said(tmp_path, store, family, router, gates):
    path = save(family(), tmp_path / "model")
    suite = SUITE.replace("{plugin: demo, dtype: float32}", f"{{path: {path}}}")
    changes = [f"router={router}", "retain=[0.25, 0.5]"]
    _, found = notes(tmp_path, store, suite, set_values=changes, methods=["random"])
    below = [words for _, fact, words in found if fact == "experts per token"]
    assert below
    assert all(gates in words for words in below)
    said = [words for _, fact, words in found if fact == "router"]
    assert len(said) == (family is mixtral and router == "preserved")
