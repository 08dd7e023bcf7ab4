"""Joins a plan and the outcome of its run into the `Results` that are written and reported."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

import numpy as np

from mbench.core.admission import Finding
from mbench.core.cell_results import UNPRUNED, CellResult, PublishedCheckpoint, TaskStatus
from mbench.core.early import EarlyFigure
from mbench.core.evaluation import Evaluation, with_changes
from mbench.core.interfaces import ExpertMask, RouterMode
from mbench.core.item_texts import ItemText
from mbench.core.provenance import ModelSource, Provenance
from mbench.core.results import Results
from mbench.core.stand_ins import Constants, StandIn, keeps_router
from mbench.plan.cells import Cell
from mbench.plan.in_words import answers_in_words, methods_in_words, protocol_in_words
from mbench.plan.models import PlannedModel
from mbench.plan.plan import Plan
from mbench.run.early.words import in_words
from mbench.run.session import Outcome
from mbench.storage.checkpoints import OnHub

INTERRUPTED = TaskStatus("interrupted", "the run ended before this")
LEFT_OUT = TaskStatus("left out", "the suite does not ask for it of this method")
PENDING = TaskStatus("pending", "not reached yet by the run")


def assemble(
    plan: Plan,
    outcome: Outcome,
    provenance: Provenance,
    admission: tuple[Finding, ...] = (),
    *,
    left: TaskStatus = INTERRUPTED,
    item_texts: Mapping[str, tuple[ItemText, ...]] | None = None,
) -> Results:
    """Every cell of the plan with its status, evaluated or not; the unpruned model first.

    `left` is the status of what has neither an outcome nor a reason.
    """
    cells: list[CellResult] = []
    arrays = _Arrays()
    for model in plan.models:
        cells.append(_unpruned(plan, outcome, model, left))
        arrays.masks[model.name, model.unpruned_mask.content_hash] = model.unpruned_mask.keep
        for cell in plan.cells_of(model.name):
            if cell.method.evaluated:
                cells.append(_asked(plan, outcome, model, cell, left, arrays))
    average = plan.suite.average
    return Results(
        suite=plan.suite.name,
        title=plan.suite.title or plan.suite.name,
        description=plan.suite.description,
        task_metrics={task.name: task.metric for task in plan.tasks},
        average=average.name if average else "",
        average_tasks=average.tasks if average else (),
        cells=tuple(_with_looked(plan, outcome, _with_changes(cells))),
        masks=arrays.masks,
        scores=arrays.scores,
        stand_ins=arrays.stand_ins,
        provenance=provenance,
        protocol=(
            *protocol_in_words(plan.suite, plan.corpora),
            *answers_in_words(admission),
            *methods_in_words(plan),
        ),
        left_out=plan.left_out,
        efficiency=tuple(outcome.efficiency),
        admission=admission,
        item_texts=item_texts or {},
    )


@dataclass(frozen=True)
class _Arrays:
    """What `Results` holds beside its cells."""

    masks: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)
    scores: dict[tuple[str, str, str], np.ndarray] = field(default_factory=dict)
    stand_ins: dict[tuple[str, str], StandIn] = field(default_factory=dict)


def _asked(
    plan: Plan,
    outcome: Outcome,
    model: PlannedModel,
    cell: Cell,
    left: TaskStatus,
    arrays: _Arrays,
) -> CellResult:
    """A cell that the suite asks for; its mask and scores go to `arrays`."""
    mask = outcome.masks.get(cell.mask_key) if cell.mask_key else None
    result = _pruned(plan, outcome, model, cell, mask, left)
    if cell.method.published is not None:
        result = _published(plan, outcome, cell, cell.method.published, result, left)
        recognised = outcome.recognised.get(cell.key)
        if recognised is not None and recognised.keep is not None:
            arrays.masks[model.name, result.mask] = recognised.keep
    elif mask is not None:
        arrays.masks[model.name, mask.content_hash] = mask.keep
        if mask.stand_in is not None:
            arrays.stand_ins[model.name, mask.content_hash] = mask.stand_in
        scores = outcome.scores[model.name, cell.method.name]
        for corpus in filter(scores.__contains__, cell.statistics):  # the store sorts by name
            arrays.scores[model.name, cell.method.name, corpus] = scores[corpus]
    return result


def _with_changes(cells: Sequence[CellResult]) -> Iterator[CellResult]:
    """The cells with predictions counted against the unpruned model's; equal masks share tables."""
    full = {cell.model: cell.evaluations for cell in cells if cell.method == UNPRUNED}
    counted: dict[tuple[str, str, str, str], Evaluation] = {}
    for cell in cells:
        evaluations = {}
        for task, found in cell.evaluations.items():
            key = (cell.model, cell.router, cell.mask, task)
            if key not in counted:
                counted[key] = with_changes(found, full.get(cell.model, {}).get(task))
            evaluations[task] = counted[key]
        yield replace(cell, evaluations=evaluations)


def _with_looked(plan: Plan, outcome: Outcome, cells: Iterable[CellResult]) -> Iterator[CellResult]:
    """The cells with the items that early figures rest on, and their order."""
    models = {model.name: model for model in plan.models}
    every = list(cells)
    told = any(cell.early for cell in every)
    for cell in every:
        looked = {}
        for task in plan.tasks if told else ():
            router = cast(RouterMode, cell.router)
            key = plan.evaluation_key(models[cell.model], cell.mask, router, task)
            asked = task.name in cell.early or cell.method == UNPRUNED
            if asked and key in outcome.looked:
                looked[task.name] = outcome.looked[key]
        yield replace(cell, looked=looked)


def _unpruned(plan: Plan, outcome: Outcome, model: PlannedModel, left: TaskStatus) -> CellResult:
    mask, router = model.unpruned_mask, plan.suite.router
    evaluations, early, tasks = _on_tasks(plan, outcome, model, mask, router, left)
    return CellResult(
        model=model.name,
        method=UNPRUNED,
        seed=None,
        retain=1.0,
        kept=model.facts.num_experts,
        router=router,
        mask=mask.content_hash,
        status="ok",
        reason="",
        notes=(),
        evaluations=evaluations,
        early=early,
        tasks=tasks,
        weight_bytes=_weight_bytes(outcome, model, mask),
    )


def _weight_bytes(outcome: Outcome, model: PlannedModel, mask: ExpertMask | None) -> int | None:
    """Of the checkpoint that the mask would be exported as; None where it is not known."""
    size = outcome.sizes.get(model.name)
    if size is None or mask is None:
        return None
    left = size.bytes_left(mask.keep, whole_router=keeps_router(mask.stand_in))
    if isinstance(mask.stand_in, Constants):
        left += mask.stand_in.outputs[~mask.keep].nbytes
    return left


def _pruned(
    plan: Plan,
    outcome: Outcome,
    model: PlannedModel,
    cell: Cell,
    mask: ExpertMask | None,
    left: TaskStatus,
) -> CellResult:
    router = cell.budget.router
    search = outcome.searches.get(cell.key)
    if mask is None:
        status = outcome.mask_problems.get(cell.key, left)
        evaluations: dict[str, Evaluation] = {}
        early: dict[str, EarlyFigure] = {}
        tasks = {task.name: status for task in plan.tasks}
    else:
        status = TaskStatus("ok")
        evaluations, early, tasks = _on_tasks(plan, outcome, model, mask, router, left)
    asked = {task.name for task in plan.tasks_of(cell)}
    tasks = {name: own if name in asked else LEFT_OUT for name, own in tasks.items()}
    return CellResult(
        model=model.name,
        method=cell.method.name,
        seed=cell.seed,
        retain=cell.budget.retain,
        kept=cell.budget.kept,
        router=router,
        mask=mask.content_hash if mask else "",
        status=status.status,
        reason=status.reason,
        notes=mask.notes if mask else (),
        evaluations={name: own for name, own in evaluations.items() if name in asked},
        early={name: own for name, own in early.items() if name in asked},
        tasks=tasks,
        stability=outcome.stabilities.get(cell.key),
        weight_bytes=_weight_bytes(outcome, model, mask),
        search_tokens=search.tokens if search else 0,
        search_masks=search.masks if search else 0,
    )


def _published(
    plan: Plan,
    outcome: Outcome,
    cell: Cell,
    published: PlannedModel,
    as_mask: CellResult,
    left: TaskStatus,
) -> CellResult:
    """A published checkpoint: what a mask computes in its place, or its own outcomes."""
    recognised = outcome.recognised.get(cell.key)
    size = outcome.sizes.get(published.name)
    on_hub = isinstance(published.checkpoint, OnHub)
    told = PublishedCheckpoint(
        source=ModelSource("hub" if on_hub else "path", published.place),
        revision=published.revision,
        content=published.key,
        stored_form=published.facts.stored_form,
        same_as_mask=recognised is not None and recognised.is_mask,
        recognised=recognised is not None and recognised.keep is not None,
        differs=recognised.differs if recognised else (),
        problems=recognised.problems if recognised else (),
    )
    result = replace(as_mask, published=told, weight_bytes=size.bytes if size else None)
    if recognised is None or recognised.is_mask:
        return result
    whole = published.unpruned_mask
    evaluations, early, tasks = _on_tasks(plan, outcome, published, whole, plan.suite.router, left)
    if recognised.problems:
        # Why it cannot be loaded is often known, e.g. that its layers hold different numbers.
        tasks = {
            name: replace(each, reason=f"{recognised.problems[0]}; {each.reason}")
            if each.status == "failed"
            else each
            for name, each in tasks.items()
        }
    return replace(
        result,
        mask=hashlib.sha256(f"checkpoint {published.key}".encode()).hexdigest(),
        status="ok",
        reason="",
        evaluations=evaluations,
        early=early,
        tasks=tasks,
    )


def _on_tasks(
    plan: Plan,
    outcome: Outcome,
    model: PlannedModel,
    mask: ExpertMask,
    router: RouterMode,
    left: TaskStatus,
) -> tuple[dict[str, Evaluation], dict[str, EarlyFigure], dict[str, TaskStatus]]:
    """A mask's outcomes, for the tasks that have one, what is known of others after some of their
    items, and its status on every task."""
    evaluations: dict[str, Evaluation] = {}
    early: dict[str, EarlyFigure] = {}
    statuses: dict[str, TaskStatus] = {}
    for task in plan.tasks:
        key = plan.evaluation_key(model, mask.content_hash, router, task)
        if key in outcome.evaluations:
            evaluations[task.name] = outcome.evaluations[key]
            statuses[task.name] = TaskStatus("ok")
        elif key in outcome.early and key not in outcome.evaluation_problems:
            early[task.name] = outcome.early[key]
            statuses[task.name] = TaskStatus("early", in_words(outcome.early[key]))
        else:
            unbuilt = outcome.task_problems.get((model.name, task.name), left)
            statuses[task.name] = outcome.evaluation_problems.get(key, unbuilt)
    return evaluations, early, statuses
