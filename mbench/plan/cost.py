"""What a plan will cost: forward passes, tokens, and an estimate of the time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mbench.core.interfaces import WEIGHTS_ONLY, ExpertMask, RouterMode
from mbench.core.model_facts import DTYPE_BYTES
from mbench.core.recognised import Recognised
from mbench.plan.cells import Cell
from mbench.plan.models import PlannedModel
from mbench.plan.plan import Plan
from mbench.plan.speeds import Speeds, read_speeds
from mbench.plan.tasks import PlannedTask, TaskSize
from mbench.storage.mask_json import mask_from_json
from mbench.storage.records import from_plain
from mbench.storage.store import Store

ASSUMED_FLOPS = 4e10
"""Floating-point operations a second where no speed was measured yet: a few CPU cores."""

UTILISATION = 0.25
"""Share of a device's peaks, in operations and in bytes read, that forward passes through routed
experts are assumed to reach."""

ROWS = 128
"""Answers that are assumed to be generated side by side on an accelerator."""


@dataclass(frozen=True)
class DeviceClass:
    """A kind of accelerator, by its maker's data sheet."""

    name: str
    flops: float
    """Dense bfloat16 operations a second at the peak."""
    bandwidth: float
    """Bytes that its memory delivers a second, at the peak."""
    memory: float
    """Bytes."""


DEVICE_CLASSES = (
    DeviceClass("RTX 4090 24 GB", 165e12, 1.0e12, 24e9),
    DeviceClass("A100 80 GB", 312e12, 2.0e12, 80e9),
    DeviceClass("H100 80 GB", 989e12, 3.35e12, 80e9),
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
    generated_tokens: int
    """Of these, tokens that are generated one after another, at most."""
    mask_tokens: int
    """Of one more mask on every task, likewise."""
    unknown_tasks: tuple[str, ...]
    """Tasks whose size nobody has counted yet, and the suite does not state."""
    expected_tasks: tuple[str, ...]
    """Tasks never built, whose tokens are what the suite expects."""
    weight_bytes: int
    """Of the unpruned model in memory."""
    seconds: float
    mask_seconds: float
    """Of one more mask on every task."""
    speed_measured: bool
    """Whether all of the passes still to do were measured on this machine, by kind."""
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
    return Estimate(tuple(model_cost(plan, store, model) for model in plan.models))


def model_cost(
    plan: Plan, store: Store, model: PlannedModel, speeds: Speeds | None = None
) -> ModelCost:
    """One model's share; None: at the speeds that the store has of this machine."""
    masks, unmade = masked_models(plan, store, model)
    corpora = _corpora(plan, store, model)
    speeds = speeds or read_speeds(store, model.identity)
    assumed = _flops(model) / ASSUMED_FLOPS
    evaluations = _evaluations(plan, store, model, masks, unmade, speeds, assumed)
    profile_tokens = sum(plan.corpora[corpus].tokens for corpus in corpora)
    made_here = [cell for cell in plan.cells_of(model.name) if _lacks_mask(cell, store)]
    search_tokens = sum(cell.search_tokens for cell in made_here)
    seconds = evaluations.seconds
    seconds += (profile_tokens + search_tokens) * speeds.for_profiles(assumed)
    seconds += sum(speeds.masks.get(cell.method.name, 0.0) for cell in made_here)
    passes_unmeasured = (profile_tokens or search_tokens) and speeds.profile is None
    return ModelCost(
        model=model.name,
        cells=sum(cell.method.evaluated for cell in plan.cells_of(model.name)),
        masks=len(masks) + len(unmade),
        masks_final=not unmade,
        profiles=len(corpora),
        profile_tokens=profile_tokens,
        search_tokens=search_tokens,
        evaluations=sum(map(len, masks.values())) + sum(len(plan.tasks_of(c)) for c in unmade),
        evaluations_cached=evaluations.stored,
        evaluation_tokens=evaluations.tokens,
        generated_tokens=evaluations.generated,
        mask_tokens=evaluations.tokens_of_a_mask,
        unknown_tasks=evaluations.unknown,
        expected_tasks=evaluations.expected,
        weight_bytes=model.facts.parameters * DTYPE_BYTES[model.computed_in],
        seconds=seconds + speeds.load if seconds else 0.0,
        mask_seconds=evaluations.seconds_of_a_mask,
        speed_measured=evaluations.measured and not passes_unmeasured,
        devices=_on_devices(
            model,
            evaluations.tokens + profile_tokens + search_tokens - evaluations.generated,
            evaluations.generated,
        ),
        files_available=model.files_available,
    )


def _lacks_mask(cell: Cell, store: Store) -> bool:
    return cell.mask_key is not None and store.read_json(cell.mask_key) is None


def _on_devices(model: PlannedModel, read: int, generated: int) -> tuple[DeviceTime, ...]:
    """Tokens that are read cost operations; those that are generated cost reading all weights, a
    token of every row at a time."""
    weights = model.facts.parameters * DTYPE_BYTES[model.computed_in]

    def hours(device: DeviceClass) -> float:
        reading = read * _flops(model) / device.flops
        generating = generated / ROWS * weights / device.bandwidth
        return (reading + generating) / UTILISATION / 3600

    return tuple(
        DeviceTime(device.name, hours(device), fits=weights < 0.9 * device.memory)
        for device in DEVICE_CLASSES
    )


@dataclass(frozen=True)
class _Masked:
    """What is evaluated once: a model under a mask, or a published checkpoint as it is."""

    model: PlannedModel
    mask: str
    """Content hash."""
    router: RouterMode


def masked_models(
    plan: Plan, store: Store, model: PlannedModel
) -> tuple[dict[_Masked, set[str]], list[Cell]]:
    """The distinct ones as far as masks are stored, the unpruned model too, with the tasks that
    each is evaluated on; and the cells whose masks are not."""
    full = _Masked(model, model.unpruned_mask.content_hash, plan.suite.router)
    known = {full: {task.name for task in plan.tasks}}
    unmade = []
    for cell in plan.cells_of(model.name):
        stored = store.read_json(cell.mask_key) if cell.mask_key else None
        if stored is None:
            if cell.method.evaluated and not cell.problem:
                unmade.append(cell)
        elif cell.method.evaluated:
            own = known.setdefault(_masked(plan, cell, model, stored), set())
            own.update(task.name for task in plan.tasks_of(cell))
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
    generated: int
    """Of these, generated one after another, at most."""
    seconds: float
    """Likewise."""
    measured: bool
    """Whether the speed of every task with something left was measured here."""
    tokens_of_a_mask: int
    """On all tasks, likewise."""
    seconds_of_a_mask: float
    unknown: tuple[str, ...]
    """Tasks of unknown size."""
    expected: tuple[str, ...]
    """Tasks whose size is what the suite expects."""


def _evaluations(
    plan: Plan,
    store: Store,
    model: PlannedModel,
    masks: Mapping[_Masked, set[str]],
    unmade: Sequence[Cell],
    speeds: Speeds,
    assumed: float,
) -> _Evaluations:
    tokens = generated = stored = of_one = 0
    seconds, seconds_of_one, measured = 0.0, 0.0, True
    unknown: list[str] = []
    expected: list[str] = []
    for task in plan.tasks:
        asked = [each for each, names in masks.items() if task.name in names]
        keys = (plan.evaluation_key(each.model, each.mask, each.router, task) for each in asked)
        done = sum(map(store.has_items, keys))
        stored += done
        built = stored_size(plan, store, model, task)
        size = built or task.expected_size
        if size is None:
            unknown.append(task.name)
            continue
        if built is None:
            expected.append(task.name)
        left = len(asked) + sum(task in plan.tasks_of(cell) for cell in unmade) - done
        digest = plan.task_size_key(model, task).digest
        # Side by side, processes do several masks in the time of one.
        of_a_mask = speeds.of(digest, assumed).seconds(size) / plan.suite.processes
        tokens += size.tokens * left
        generated += size.generated * left
        seconds += of_a_mask * left
        of_one += size.tokens
        seconds_of_one += of_a_mask
        measured &= not left or digest in speeds.tasks
    return _Evaluations(
        stored,
        tokens,
        generated,
        seconds,
        measured,
        of_one,
        seconds_of_one,
        tuple(unknown),
        tuple(expected),
    )


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
