"""What a plan will cost: forward passes, tokens, and an estimate of the time."""

from __future__ import annotations

import platform
from dataclasses import asdict, dataclass
from typing import Any

from mbench.core.interfaces import WEIGHTS_ONLY, ExpertMask, RouterMode
from mbench.core.model_facts import DTYPE_BYTES
from mbench.core.recognised import Recognised
from mbench.plan.cells import Cell
from mbench.plan.keys import speed_key
from mbench.plan.models import PlannedModel
from mbench.plan.plan import Plan
from mbench.plan.tasks import PlannedTask, TaskSize
from mbench.storage.mask_json import mask_from_json
from mbench.storage.records import from_plain
from mbench.storage.store import Store

ASSUMED_FLOPS = 4e10
"""Floating-point operations a second where no speed was measured yet: a few CPU cores."""

UTILISATION = 0.25
"""Share of a device's peak that forward passes through routed experts are assumed to reach."""


@dataclass(frozen=True)
class DeviceClass:
    """A kind of accelerator, by its maker's data sheet."""

    name: str
    flops: float
    """Dense bfloat16 operations a second at the peak."""
    memory: float
    """Bytes."""


DEVICE_CLASSES = (
    DeviceClass("RTX 4090 24 GB", 165e12, 24e9),
    DeviceClass("A100 80 GB", 312e12, 80e9),
    DeviceClass("H100 80 GB", 989e12, 80e9),
)


@dataclass(frozen=True)
class DeviceTime:
    """The estimated time of a plan on a kind of accelerator."""

    device: str
    hours: float
    fits: bool
    """Whether the weights leave room for anything else in its memory."""


@dataclass(frozen=True)
class ModelCost:
    """One model's share of a plan."""

    model: str
    cells: int
    masks: int
    """Distinct masks to evaluate, the unpruned model included; an upper bound until all are made,
    because methods may agree."""
    masks_final: bool
    """Whether every mask is known, so that `masks` is exact."""
    profiles: int
    """Forward passes over calibration corpora still to do."""
    profile_tokens: int
    search_tokens: int
    """The most that searches for masks may cost, of those still to do."""
    evaluations: int
    """Mask x task pairs."""
    evaluations_cached: int
    evaluation_tokens: int
    """Of the evaluations still to do, as far as their tasks are known."""
    mask_tokens: int
    """Of one more mask on every task, likewise."""
    unknown_tasks: tuple[str, ...]
    """Tasks whose size nobody has counted yet, and the suite does not state."""
    expected_tasks: tuple[str, ...]
    """Tasks never built, whose tokens are what the suite expects."""
    weight_bytes: int
    """Of the unpruned model in memory."""
    seconds: float
    tokens_per_second: float
    speed_measured: bool
    devices: tuple[DeviceTime, ...]
    """The same work on other machines."""
    files_available: bool
    """False where the model's files are out of reach, so that its sizes are what the suite expects.
    """


@dataclass(frozen=True)
class Estimate:
    """A plan's cost by model."""

    models: tuple[ModelCost, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values for `--json`."""
        return {"models": [asdict(model) for model in self.models]}


def estimate(plan: Plan, store: Store) -> Estimate:
    """Look at the store and count; loads nothing."""
    return Estimate(tuple(_model_cost(plan, store, model) for model in plan.models))


def _model_cost(plan: Plan, store: Store, model: PlannedModel) -> ModelCost:
    masks, unmade = masked_models(plan, store, model)
    corpora = _corpora(plan, store, model)
    evaluations = _evaluations(plan, store, model, masks, unmade)
    profile_tokens = sum(plan.corpora[corpus].tokens for corpus in corpora)
    measured = store.read_json(speed_key(model.identity, platform.node()))
    per_second = measured["tokens_per_second"] if measured else ASSUMED_FLOPS / _flops(model)
    weights = model.facts.parameters * DTYPE_BYTES[model.computed_in]
    search_tokens = sum(
        cell.search_tokens
        for cell in plan.cells_of(model.name)
        if cell.mask_key is not None and store.read_json(cell.mask_key) is None
    )
    tokens = evaluations.tokens + profile_tokens + search_tokens
    return ModelCost(
        model=model.name,
        cells=sum(cell.method.evaluated for cell in plan.cells_of(model.name)),
        masks=len(masks) + unmade,
        masks_final=unmade == 0,
        profiles=len(corpora),
        profile_tokens=profile_tokens,
        search_tokens=search_tokens,
        evaluations=(len(masks) + unmade) * len(plan.tasks),
        evaluations_cached=evaluations.stored,
        evaluation_tokens=evaluations.tokens,
        mask_tokens=evaluations.tokens_of_a_mask,
        unknown_tasks=evaluations.unknown,
        expected_tasks=evaluations.expected,
        weight_bytes=weights,
        seconds=tokens / per_second,
        tokens_per_second=per_second,
        speed_measured=measured is not None,
        devices=tuple(
            DeviceTime(
                device=device.name,
                hours=tokens * _flops(model) / device.flops / UTILISATION / 3600,
                fits=weights < 0.9 * device.memory,
            )
            for device in DEVICE_CLASSES
        ),
        files_available=model.files_available,
    )


@dataclass(frozen=True)
class _Masked:
    """What is evaluated once: a model under a mask, or a published checkpoint as it is."""

    model: PlannedModel
    mask: str
    """Content hash."""
    router: RouterMode


def masked_models(plan: Plan, store: Store, model: PlannedModel) -> tuple[set[_Masked], int]:
    """The distinct ones as far as masks are stored, the unpruned model too; how many are not."""
    known = {_Masked(model, model.unpruned_mask.content_hash, plan.suite.router)}
    unmade = 0
    for cell in plan.cells_of(model.name):
        stored = store.read_json(cell.mask_key) if cell.mask_key else None
        if stored is None:
            unmade += cell.method.evaluated and not cell.problem
        elif cell.method.evaluated:
            known.add(_masked(plan, cell, model, stored))
    return known, unmade


def _masked(plan: Plan, cell: Cell, model: PlannedModel, stored: Any) -> _Masked:
    published = cell.method.published
    if published is None:
        mask = mask_from_json(stored, model.facts.layers)
        return _Masked(model, mask.content_hash, cell.budget.router)
    recognised = Recognised.from_json(stored)
    if recognised.keep is not None and recognised.is_mask:
        return _Masked(model, ExpertMask(recognised.keep).content_hash, cell.budget.router)
    return _Masked(published, published.unpruned_mask.content_hash, plan.suite.router)


def _corpora(plan: Plan, store: Store, model: PlannedModel) -> set[str]:
    """Those that are still to be profiled; reading weights is no forward pass."""
    return {
        job.corpus
        for cell in plan.cells_of(model.name)
        if cell.mask_key is None or store.read_json(cell.mask_key) is None
        for jobs in cell.statistics.values()
        for job in jobs
        if job.corpus != WEIGHTS_ONLY and not store.has_statistic(job.key)
    }


@dataclass(frozen=True)
class _Evaluations:
    """What is stored of a model's evaluations, and what is left."""

    stored: int
    tokens: int
    """Still to do, as far as the tasks' sizes are known."""
    tokens_of_a_mask: int
    """On all tasks, likewise."""
    unknown: tuple[str, ...]
    """Tasks of unknown size."""
    expected: tuple[str, ...]
    """Tasks whose size is what the suite expects."""


def _evaluations(
    plan: Plan, store: Store, model: PlannedModel, masks: set[_Masked], unmade: int
) -> _Evaluations:
    tokens, stored, of_one = 0, 0, 0
    unknown: list[str] = []
    expected: list[str] = []
    for task in plan.tasks:
        keys = (plan.evaluation_key(each.model, each.mask, each.router, task) for each in masks)
        done = sum(map(store.has_items, keys))
        stored += done
        built = stored_size(plan, store, model, task)
        per_mask = task.expected_tokens if built is None else built.tokens
        if per_mask is None:
            unknown.append(task.name)
        elif built is None:
            expected.append(task.name)
        tokens += (per_mask or 0) * (len(masks) + unmade - done)
        of_one += per_mask or 0
    return _Evaluations(stored, tokens, of_one, tuple(unknown), tuple(expected))


def stored_size(
    plan: Plan, store: Store, model: PlannedModel, task: PlannedTask
) -> TaskSize | None:
    """A task's size for a model where a check or a run counted it, else None."""
    stored = store.read_json(plan.task_size_key(model, task))
    return None if stored is None else from_plain(TaskSize, stored)


def _flops(model: PlannedModel) -> float:
    """Operations per token: twice the parameters that a token uses."""
    facts = model.facts
    idle = len(facts.layers) * (facts.num_experts - facts.top_k) * facts.expert_parameters
    return 2.0 * (facts.parameters - idle)
