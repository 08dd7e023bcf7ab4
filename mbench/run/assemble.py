"""Joins a plan and what its run achieved into the `Results` that are written and reported."""

from __future__ import annotations

from typing import Any

import numpy as np

from mbench.core.interfaces import ExpertMask, RouterMode
from mbench.core.provenance import Provenance
from mbench.core.results import UNPRUNED, CellResult, Results, TaskStatus
from mbench.plan.cells import Cell, Plan
from mbench.plan.in_words import methods_in_words, protocol_in_words
from mbench.plan.models import PlannedModel
from mbench.run.session import Outcome


def assemble(plan: Plan, outcome: Outcome, provenance: Provenance) -> Results:
    """Every cell of the plan with its status, evaluated or not; the unpruned model first."""
    cells: list[CellResult] = []
    masks: dict[tuple[str, str], np.ndarray] = {}
    for model in plan.models:
        facts = model.facts
        everything = ExpertMask(model.all_kept())
        cells.append(
            CellResult(
                model=model.name,
                method=UNPRUNED,
                seed=None,
                retain=1.0,
                kept=facts.num_experts,
                router=plan.suite.router,
                status="ok",
                reason="",
                notes=(),
                **_evaluated(plan, outcome, model, everything, plan.suite.router),
            )
        )
        masks[model.name, everything.content_hash] = everything.keep
        for cell in plan.cells_of(model.name):
            if not cell.method.evaluated:
                continue
            mask = outcome.masks.get(cell.mask_key) if cell.mask_key else None
            cells.append(_cell_result(plan, outcome, model, cell, mask))
            if mask is not None:
                masks[model.name, mask.content_hash] = mask.keep
    average = plan.suite.average
    return Results(
        suite=plan.suite.name,
        title=plan.suite.title or plan.suite.name,
        description=plan.suite.description,
        task_metrics={task.name: task.metric for task in plan.tasks},
        average=average.name if average else "",
        average_tasks=average.tasks if average else (),
        cells=tuple(cells),
        masks=masks,
        provenance=provenance,
        protocol=(*protocol_in_words(plan.suite), *methods_in_words(plan)),
        efficiency=tuple(outcome.efficiency),
    )


def _cell_result(
    plan: Plan, outcome: Outcome, model: PlannedModel, cell: Cell, mask: ExpertMask | None
) -> CellResult:
    unfinished = TaskStatus("interrupted", "the run ended before this")
    problem = outcome.mask_problems.get(cell.key, unfinished)
    status = TaskStatus("ok") if mask is not None else problem
    evaluated = (
        _evaluated(plan, outcome, model, mask, cell.budget.router)
        if mask is not None
        else {"mask": "", "evaluations": {}, "tasks": {task.name: status for task in plan.tasks}}
    )
    return CellResult(
        model=model.name,
        method=cell.method.name,
        seed=cell.seed,
        retain=cell.budget.retain,
        kept=cell.budget.kept,
        router=cell.budget.router,
        status=status.status,
        reason=status.reason,
        notes=mask.notes if mask is not None else (),
        **evaluated,
    )


def _evaluated(
    plan: Plan, outcome: Outcome, model: PlannedModel, mask: ExpertMask, router: RouterMode
) -> dict[str, Any]:
    evaluations, tasks = {}, {}
    for task in plan.tasks:
        key = plan.evaluation_key(model, mask.content_hash, router, task)
        if key in outcome.evaluations:
            evaluations[task.name] = outcome.evaluations[key]
            tasks[task.name] = TaskStatus("ok")
        else:
            unfinished = TaskStatus("interrupted", "the run ended before this")
            tasks[task.name] = outcome.evaluation_problems.get(
                key, outcome.task_problems.get((model.name, task.name), unfinished)
            )
    return {"mask": mask.content_hash, "evaluations": evaluations, "tasks": tasks}
