"""What a plan will cost: forward passes, tokens, and an estimate of the time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mbench.core.interfaces import WEIGHTS_ONLY, ExpertMask, RouterMode
from mbench.core.model_facts import DTYPE_BYTES
from mbench.core.recognised import Recognised
from mbench.plan.cells import Cell
from mbench.plan.device_times import DeviceTime, flops_per_token, on_devices
from mbench.plan.models import PlannedModel
from mbench.plan.plan import Plan
from mbench.plan.speeds import Speeds, read_speeds
from mbench.plan.stored_looks import read_looks
from mbench.plan.tasks import PlannedTask, TaskSize
from mbench.storage.mask_json import mask_from_json
from mbench.storage.records import from_plain
from mbench.storage.store import Store

ASSUMED_FLOPS = 4e10
"""Floating-point operations a second where no speed was measured yet: a few CPU cores. What
follows from it decides how long to measure, and is shown to nobody: it was three times too fast."""

TIMES = ("seconds", "mask_seconds", "first_seconds")
"""Of a `ModelCost`, those that nobody can tell where no speed was measured."""


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
    evaluations_begun: int
    """Of the others, those of which early verdicts left outcomes of some items, which are not
    computed again."""
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
    first_seconds: float
    """Of `seconds`, what comes before any mask is evaluated: to load, profile, make masks, and
    evaluate the unpruned model in one process."""
    speed_measured: bool
    """Whether all of the passes still to do were measured on this machine, by kind."""
    speed_known: bool
    """Or at least some of the model's tasks, which the others are taken to be like; where not,
    times rest on an assumed speed."""
    devices: tuple[DeviceTime, ...]
    """The same work on other machines."""
    files_available: bool
    """False where the model's files are out of reach, so that its sizes are what the suite expects.
    """

    @property
    def evaluations_left(self) -> int:
        """Those still to do."""
        return self.evaluations - self.evaluations_cached


@dataclass(frozen=True)
class Estimate:
    """A plan's cost by model."""

    models: tuple[ModelCost, ...]

    @property
    def nothing_to_do(self) -> bool:
        """Whether all outcomes are stored."""
        return not any(cost.evaluations_left or cost.profiles for cost in self.models)

    def to_json(self) -> dict[str, Any]:
        """Plain values for `--json`; no times where none is known."""
        unknown = dict.fromkeys(TIMES)
        return {
            "models": [asdict(cost) | ({} if cost.speed_known else unknown) for cost in self.models]
        }


def estimate(plan: Plan, store: Store, side_by_side: int | None = None) -> Estimate:
    """Look at the store and count; loads nothing. `side_by_side`: see `model_cost`."""
    return Estimate(
        tuple(model_cost(plan, store, each, side_by_side=side_by_side) for each in plan.models)
    )


def model_cost(
    plan: Plan,
    store: Store,
    model: PlannedModel,
    speeds: Speeds | None = None,
    side_by_side: int | None = None,
) -> ModelCost:
    """One model's share.

    `speeds`: None: those that the store has of this machine. `side_by_side`: masks evaluated at a
    time; None: as many as the suite has processes.
    """
    masks, unmade = masked_models(plan, store, model)
    corpora = _corpora(plan, store, model)
    speeds = speeds or read_speeds(store, model.identity)
    assumed = flops_per_token(model) / ASSUMED_FLOPS
    side_by_side = side_by_side or plan.suite.processes
    evaluations = _evaluations(plan, store, model, masks, unmade, speeds, assumed, side_by_side)
    profile_tokens = sum(plan.corpora[corpus].tokens for corpus in corpora)
    made_here = [cell for cell in plan.cells_of(model.name) if _lacks_mask(cell, store)]
    search_tokens = sum(cell.search_tokens for cell in made_here)
    first = (profile_tokens + search_tokens) * speeds.for_profiles(assumed)
    first += sum(speeds.masks.get(cell.method.name, 0.0) for cell in made_here)
    seconds = evaluations.seconds + first
    first += evaluations.seconds_of_the_unpruned
    passes_unmeasured = (profile_tokens or search_tokens) and speeds.profile is None
    measured = evaluations.measured and not passes_unmeasured
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
        evaluations_begun=evaluations.begun,
        evaluation_tokens=evaluations.tokens,
        generated_tokens=evaluations.generated,
        mask_tokens=evaluations.tokens_of_a_mask,
        unknown_tasks=evaluations.unknown,
        expected_tasks=evaluations.expected,
        weight_bytes=model.facts.parameters * DTYPE_BYTES[model.computed_in],
        seconds=seconds + speeds.load if seconds else 0.0,
        mask_seconds=evaluations.seconds_of_a_mask,
        first_seconds=first + speeds.load if seconds else 0.0,
        speed_measured=measured,
        speed_known=measured or speeds.tell(evaluations.tokens, evaluations.generated),
        devices=on_devices(
            model,
            evaluations.tokens + profile_tokens + search_tokens - evaluations.generated,
            evaluations.generated,
        ),
        files_available=model.files_available,
    )


def _lacks_mask(cell: Cell, store: Store) -> bool:
    return cell.mask_key is not None and store.read_json(cell.mask_key) is None


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
    begun: int
    """Of those that are not, with the outcomes of some items."""
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
    seconds_of_the_unpruned: float
    """On the tasks that it has no outcome on, in one process."""
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
    side_by_side: int,
) -> _Evaluations:
    tokens = generated = stored = started = of_one = 0
    seconds, seconds_of_one, seconds_of_the_unpruned, measured = 0.0, 0.0, 0.0, True
    unpruned = next(iter(masks))
    unknown: list[str] = []
    expected: list[str] = []
    for task in plan.tasks:
        asked = [each for each, names in masks.items() if task.name in names]
        keys = (plan.evaluation_key(each.model, each.mask, each.router, task) for each in asked)
        missing = [key for key in keys if not store.has_items(key)]
        done = len(asked) - len(missing)
        stored += done
        built = stored_size(plan, store, model, task)
        size = built or task.expected_size
        if size is None:
            unknown.append(task.name)
            continue
        if built is None:
            expected.append(task.name)
        left = len(asked) + sum(task in plan.tasks_of(cell) for cell in unmade) - done
        looks = read_looks(store, plan.task_size_key(model, task))
        begun = [found for key in missing if (found := looks.stored(store, key))]
        there = [look for found in begun for look in found]
        started += len(begun)
        digest = plan.task_size_key(model, task).digest
        of_a_mask = speeds.of(digest, assumed).seconds(size) / side_by_side
        tokens += size.tokens * left - sum(look.tokens for look in there)
        generated += size.generated * left - sum(look.generated for look in there)
        seconds += of_a_mask * left
        seconds -= sum(map(speeds.of(digest, assumed).seconds, there)) / side_by_side
        of_one += size.tokens
        seconds_of_one += of_a_mask
        if not store.has_items(
            plan.evaluation_key(unpruned.model, unpruned.mask, unpruned.router, task)
        ):
            seconds_of_the_unpruned += of_a_mask * side_by_side
        measured &= not left or digest in speeds.tasks
    return _Evaluations(
        stored,
        started,
        tokens,
        generated,
        seconds,
        measured,
        of_one,
        seconds_of_one,
        seconds_of_the_unpruned,
        tuple(unknown),
        tuple(expected),
    )


def stored_size(
    plan: Plan, store: Store, model: PlannedModel, task: PlannedTask
) -> TaskSize | None:
    """A task's size for a model where a check or a run counted it, else None."""
    stored = store.read_json(plan.task_size_key(model, task))
    return None if stored is None else from_plain(TaskSize, stored)
