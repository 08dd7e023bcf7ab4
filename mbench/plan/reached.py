"""Which early verdicts were reached, so that a plan can tell when its run has nothing left to do.

How many items a mask needs shows only as it is evaluated. A run that reached its precision leaves
a note of what it had by then, which holds for as long as all of that is stored.
"""

from __future__ import annotations

from mbench.core.early import EarlyGoal
from mbench.plan.cost import masked_models
from mbench.plan.plan import Plan
from mbench.plan.stored_looks import Looks, read_looks
from mbench.storage.store import Key, Store


def is_reached(plan: Plan, store: Store, goal: EarlyGoal | None) -> bool:
    """Whether a run of this plan would find all that it needs; with hours, each run goes on."""
    there = _there(plan, store) if goal is not None and goal.hours is None else {}
    if goal is None or not there:
        return False
    before = store.read_json(_key(there, goal))
    return before is not None and all(there[each] >= looks for each, looks in before.items())


def remember_reached(plan: Plan, store: Store, goal: EarlyGoal) -> None:
    """A run of this plan has ended at its precision, with what is stored by now."""
    there = _there(plan, store) if goal.hours is None else {}
    if there:
        store.write_json(_key(there, goal), there, replace=True)


def evaluations_with_looks(plan: Plan, store: Store) -> dict[Key, Looks] | None:
    """All evaluations that a plan asks for, with the looks at their tasks; None where masks are to
    be made, which is not known before."""
    found: dict[Key, Looks] = {}
    for model in plan.models:
        masked, unmade = masked_models(plan, store, model)
        if unmade:
            return None
        for each, names in masked.items():
            for task in plan.tasks:
                if task.name in names:
                    key = plan.evaluation_key(each.model, each.mask, each.router, task)
                    found[key] = read_looks(store, plan.task_size_key(each.model, task))
    return found


def _there(plan: Plan, store: Store) -> dict[str, int]:
    """How many looks are stored of each evaluation; nothing where masks are to be made."""
    found = evaluations_with_looks(plan, store) or {}
    return {
        key.digest: max(1, len(looks.looks))
        if store.has_items(key)
        else len(looks.stored(store, key))
        for key, looks in found.items()
    }


def _key(evaluations: dict[str, int], goal: EarlyGoal) -> Key:
    label = f"early verdict of {len(evaluations)} evaluations, {goal.in_words}"
    made_by = {"kind": "early verdict", "precision": goal.precision, "of": sorted(evaluations)}
    return Key.of("facts", label, made_by)
