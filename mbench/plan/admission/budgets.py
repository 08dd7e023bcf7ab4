"""Budgets at which pruning is mixed with something else."""

from __future__ import annotations

from collections.abc import Iterator

from mbench.core.admission import Finding
from mbench.plan.admission.check import Check
from mbench.plan.cells import Plan
from mbench.plan.models import PlannedModel


def budget_checks(plan: Plan) -> Iterator[Check]:
    """What is to be known of the suite's budgets on each model."""
    for model in plan.models:
        yield Check(lambda model=model: _fewer_than_top_k(plan, model))  # type: ignore[misc]


def _fewer_than_top_k(plan: Plan, model: PlannedModel) -> Iterator[Finding]:
    """Every expert that is left is taken for every token, and gates are shared among fewer."""
    top_k = model.facts.top_k
    for retain in plan.suite.retain:
        kept = plan.kept(model, retain)
        if kept < top_k:
            words = (
                f"{kept} experts are kept where a token chooses {top_k}: every token takes all"
                f" {kept}, so figures mix pruning with a smaller top-k"
            )
            yield Finding("retain", f"{retain:g}", "experts per token", words, "note", model.name)
