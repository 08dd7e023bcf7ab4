"""What a plan will cost: forward passes, tokens, and a time that says how it was guessed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from mbench.interfaces import ExpertMask
from mbench.masks import mask_from_json
from mbench.plan import Plan, PlannedModel
from mbench.planned_tasks import PlannedTask
from mbench.store import Store, key_of

ASSUMED_FLOPS = 4e10
"""Floating-point operations a second where no speed was measured yet: a few CPU cores."""


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
    evaluations: int
    """Mask x task pairs."""
    evaluations_cached: int
    evaluation_tokens: int
    """Of the evaluations still to do, as far as their tasks are known."""
    unknown_tasks: tuple[str, ...]
    """Tasks whose size is known only after they were built once."""
    seconds: float
    speed_measured: bool


@dataclass(frozen=True)
class Estimate:
    """A plan's cost by model."""

    models: tuple[ModelCost, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values for `--json`."""
        return {"models": [asdict(model) for model in self.models]}


def task_cost_key(model: PlannedModel, task: PlannedTask) -> str:
    """Where the number of tokens of a built task is remembered."""
    return key_of({"kind": "task cost", "model": model.key, "task": dict(task.fingerprint)})


def speed_key(model: PlannedModel) -> str:
    """Where the speed of a model on this machine is remembered."""
    return key_of({"kind": "speed", "model": model.key, "dtype": model.dtype})


def estimate(plan: Plan, store: Store) -> Estimate:
    """Look at the store and count; loads nothing."""
    return Estimate(tuple(_model_cost(plan, store, model) for model in plan.models))


def _model_cost(plan: Plan, store: Store, model: PlannedModel) -> ModelCost:
    cells = plan.cells_of(model.name)
    evaluated = [cell for cell in cells if cell.method.evaluated]
    corpora: set[str] = set()
    hashes = {ExpertMask(model.all_kept()).content_hash}
    unmade = 0
    for cell in cells:
        stored = store.read_json("masks", cell.key) if cell.key else None
        if stored is None:
            unmade += cell.method.evaluated and not cell.problem
            for corpus, jobs in cell.statistics.items():
                if not all(store.has_statistic(job.key) for job in jobs):
                    corpora.add(corpus)
        elif cell.method.evaluated:
            hashes.add(mask_from_json(stored, model.facts.layers).content_hash)
    tokens, cached, unknown = 0, 0, []
    for task in plan.tasks:
        done = sum(store.has_items(plan.evaluation_key(model, h, task)) for h in hashes)
        cached += done
        known = store.read_json("facts", task_cost_key(model, task))
        if known is None:
            unknown.append(task.name)
        else:
            tokens += known["tokens"] * (len(hashes) + unmade - done)
    specs = [plan.suite.corpora[corpus] for corpus in corpora]
    profile_tokens = sum(spec.sequences * spec.length for spec in specs)
    measured = store.read_json("facts", speed_key(model))
    per_second = measured["tokens_per_second"] if measured else ASSUMED_FLOPS / _flops(model)
    return ModelCost(
        model=model.name,
        cells=len(evaluated),
        masks=len(hashes) + unmade,
        masks_final=unmade == 0,
        profiles=len(corpora),
        profile_tokens=profile_tokens,
        evaluations=(len(hashes) + unmade) * len(plan.tasks),
        evaluations_cached=cached,
        evaluation_tokens=tokens,
        unknown_tasks=tuple(unknown),
        seconds=(tokens + profile_tokens) / per_second,
        speed_measured=measured is not None,
    )


def _flops(model: PlannedModel) -> float:
    """Operations per token: twice the parameters that a token uses."""
    facts = model.facts
    idle = len(facts.layers) * (facts.num_experts - facts.top_k) * facts.expert_parameters
    return 2.0 * (facts.parameters - idle)
