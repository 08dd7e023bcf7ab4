"""Budgets at which pruning is mixed with something else, or that differ in name only."""

from __future__ import annotations

from collections.abc import Iterator

from mbench.core.admission import Finding
from mbench.plan.admission.check import Check
from mbench.plan.models import PlannedModel
from mbench.plan.plan import Plan


def budget_checks(plan: Plan) -> Iterator[Check]:
    """What is to be known of the suite's budgets on each model."""
    yield Check(lambda: budget_findings(plan))


def budget_findings(plan: Plan) -> Iterator[Finding]:
    """What is to be known of budgets and router modes; looks at no file."""
    yield from _without_cells(plan)
    for model in plan.models:
        yield from _preserved_is_sliced(plan, model)
        first: dict[int, float] = {}
        for retain in plan.suite.retain:
            kept = plan.kept(model, retain)
            if first.setdefault(kept, retain) != retain:
                words = (
                    f"keeps {kept} of {model.facts.num_experts} experts, as {first[kept]:g} does"
                )
                yield Finding("retain", f"{retain:g}", "experts kept", words, "note", model.name)
            if kept < model.facts.top_k:
                words = _fewer_than_top_k(plan, model, kept)
                yield Finding(
                    "retain", f"{retain:g}", "experts per token", words, "note", model.name
                )


def _without_cells(plan: Plan) -> Iterator[Finding]:
    """Gaps in the leaderboard, which a reader must not take for failures."""
    budgets: dict[tuple[str, str, str], list[str]] = {}
    for left in plan.left_out:
        pruned = f"{100 * (1 - left.retain):.4g}"
        budgets.setdefault((left.model, left.method, left.reason), []).append(pruned)
    for (model, method, reason), pruned_by in budgets.items():
        fact = f"no cell at {', '.join(pruned_by)} % pruned"
        yield Finding("methods", method, fact, reason, "note", model)


def _fewer_than_top_k(plan: Plan, model: PlannedModel, kept: int) -> str:
    """Every expert that is left is taken for every token, whatever the router says."""
    facts = model.facts
    words = (
        f"{kept} experts are kept where a token chooses {facts.top_k}: every token takes all {kept}"
    )
    if facts.gates == "renormalised":
        words += ", with larger gates, for they sum up to what they did before"
    elif facts.gates == "grown" and plan.suite.router == "sliced":
        words += ", with larger gates, for their softmax is over fewer experts"
    elif facts.gates is not None:
        words += f", and what {facts.top_k - kept} more added is missing"
    return words + "; figures mix pruning with that"


def _preserved_is_sliced(plan: Plan, model: PlannedModel) -> Iterator[Finding]:
    methods = {
        cell.method.name: None
        for cell in plan.cells_of(model.name)
        if cell.budget.router == "preserved"
    }
    reasons = {
        "renormalised": "gates are renormalised among a token's experts",
        "kept": "every expert is scored by itself",
    }
    reason = reasons.get(model.facts.gates or "")
    if methods and reason:
        words = (
            f"`preserved` changes nothing for {', '.join(methods)}, it equals `sliced`: {reason}"
        )
        yield Finding("models", model.name, "router", words, "note", model.name)
