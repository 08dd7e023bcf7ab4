"""Budgets at which a token gets fewer experts than in the full model."""

from __future__ import annotations

from helpers.tiny_suite import SUITE, plan_of
from mbench.plan.admission.admit import admit
from mbench.storage.store import Store


def test_budgets_below_the_models_top_k_are_noted_and_no_others(tmp_path):
    store = Store(tmp_path / "store")
    plan = plan_of(tmp_path, store, SUITE.replace("[0.25, 0.5]", "[0.05, 0.25, 0.5]"))
    (facts,) = (model.facts for model in plan.models)
    expected = [
        f"{retain:g}"
        for retain in (0.05, 0.25, 0.5)
        if int(retain * facts.num_experts + 1e-9) < facts.top_k
    ]
    notes = [f for f in admit(plan, store) if f.section == "retain" and f.level == "note"]
    assert [note.name for note in notes] == expected == ["0.05"]
