"""Random pruning in a plan: how many masks it draws, and what more of them would cost."""

from __future__ import annotations

from dataclasses import dataclass

from mbench.plan.cost import Estimate
from mbench.plan.plan import Plan

RANDOM = "random"

ENOUGH = 19
"""Masks of which a method must beat all to be among the best 5 %: of S + 1 exchangeable masks each
is the best with probability 1 / (S + 1)."""


@dataclass(frozen=True)
class FewMasks:
    """Why a suite's random masks are few, and the way to enough of them."""

    masks: int
    """At each budget."""
    least_p: float
    """One-sided rank p-value of a method that beats all of them."""
    key: str
    """Of the suite, that gives their number."""
    more: int
    """Masks at each budget that `ENOUGH` seeds, counted from 0, add to the suite's own."""
    tokens: int | None
    """Forward tokens of these on all models; None where nobody has counted the tasks' yet."""
    seconds: float | None
    """Likewise, and where no speed was measured yet."""
    all_tasks: bool
    """Whether they are evaluated on all tasks; else the two are more than it costs."""


def random_seeds(plan: Plan) -> tuple[int, ...]:
    """The seeds of random pruning; empty where the suite has none."""
    cells = (cell for cell in plan.cells if cell.method.evaluated and cell.method.name == RANDOM)
    return tuple(dict.fromkeys(cell.seed for cell in cells if cell.seed is not None))


def few_masks(plan: Plan, estimate: Estimate) -> FewMasks | None:
    """None where there are enough, or no random pruning."""
    seeds = random_seeds(plan)
    if not seeds or len(seeds) >= ENOUGH:
        return None
    own = plan.suite.methods.get(RANDOM)
    listed = [cell.method.tasks for cell in plan.cells if cell.method.name == RANDOM]
    more = len(set(range(ENOUGH)) - set(seeds))
    masks = more * len(plan.suite.retain)
    known = not any(cost.unknown_tasks for cost in estimate.models)
    measured = known and all(cost.speed_measured for cost in estimate.models)
    costs = [(masks * c.mask_tokens, masks * c.mask_seconds) for c in estimate.models]
    return FewMasks(
        masks=len(seeds),
        least_p=1 / (len(seeds) + 1),
        key="seeds" if own is None or own.seeds is None else f"methods.{RANDOM}.seeds",
        more=more,
        tokens=sum(tokens for tokens, _ in costs) if known else None,
        seconds=sum(seconds for _, seconds in costs) if measured else None,
        all_tasks=all(tasks is None for tasks in listed),
    )
