"""What a plan needs of a store: all that its run would take from it, were it there."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from typing import Any

from mbench.core.search import MaskSearch
from mbench.plan.cost import masked_models
from mbench.plan.fact_keys import efficiency_key, speed_key, stored_size_key
from mbench.plan.models import PlannedModel
from mbench.plan.plan import Plan
from mbench.plan.stored_looks import task_looks_key
from mbench.storage.housekeeping import contents, describe
from mbench.storage.store import Key, Store


def needed(plan: Plan, store: Store) -> set[Key]:
    """Keys of everything that the plan was made of, and that its run would read or write.

    `store` is the one that the plan was made with. The evaluations of masks that are not made yet
    are unknown, and are not there. Measurements count whatever machine they were made on. Of masks
    that searches tried, those count whose search has not ended.
    """
    keys = set(store.asked)
    for model in plan.models:
        keys |= set(_of_model(plan, model, store))
    keys |= set(_looks(store, keys))
    return keys | set(_measurements(plan, store)) | set(_tried(plan, store))


def _looks(store: Store, keys: set[Key]) -> Iterator[Key]:
    """What early verdicts evaluated of the evaluations that are not there."""
    wanted = {key for key in keys if key.kind == "evaluations"}
    digests = {key.digest for key in wanted if not store.has_items(key)}
    for stored in contents(store, ["evaluations"]) if digests else ():
        if stored.key not in wanted:
            described = describe(stored, whole=False)
            if described is not None and described.record.get("look of") in digests:
                yield stored.key


def _of_model(plan: Plan, model: PlannedModel, store: Store) -> Iterator[Key]:
    for cell in plan.cells_of(model.name):
        for jobs in cell.statistics.values():
            yield from (job.key for job in jobs)
        if cell.mask_key is not None and store.read_json(cell.mask_key) is not None:
            yield cell.mask_key
    masked, _ = masked_models(plan, store, model)
    for task in plan.tasks:
        yield plan.item_texts_key(model, task)
        for each in masked:
            yield (size := plan.task_size_key(each.model, task))
            yield task_looks_key(size)
            yield plan.evaluation_key(each.model, each.mask, each.router, task)
    published = (cell.method.published for cell in plan.cells_of(model.name))
    for checkpoint in (model, *(found for found in published if found is not None)):
        yield speed_key(checkpoint.identity, platform.node())
        yield stored_size_key(plan.code, checkpoint.name, checkpoint.key)


def _tried(plan: Plan, store: Store) -> Iterator[Key]:
    """What is remembered for searches that have no mask yet."""
    wanted = []
    for model in plan.models:
        for cell in plan.cells_of(model.name):
            builder = cell.method.builder
            if not isinstance(builder, MaskSearch) or cell.mask_key is None:
                continue
            if store.read_json(cell.mask_key) is not None:
                continue
            sequences = builder.params.sequences
            for corpus in cell.method.corpora:
                keys = [plan.probe_key(model, cell, corpus, "", sequences)]
                for each in builder.needs:
                    keys.append(plan.masked_statistic_key(model, cell, corpus, each, "", sequences))
                wanted += [_of_any(key.record(), "mask") for key in keys]
    if not wanted:
        return
    for stored in contents(store, ["probes", "statistics"]):
        described = describe(stored, whole=False)
        if described is not None and _of_any(described.record, "mask") in wanted:
            yield stored.key


def _measurements(plan: Plan, store: Store) -> Iterator[Key]:
    spec = plan.suite.efficiency
    if spec is None:
        return
    wanted = [
        _of_any(
            efficiency_key(
                plan.code, model.identity, plan.kept(model, retain), spec.model_dump(), ""
            ).record(),
            "device",
        )
        for model in plan.models
        for retain in plan.suite.retain
    ]
    for stored in contents(store, ["efficiency"]):
        described = describe(stored, whole=False)
        if described is not None and _of_any(described.record, "device") in wanted:
            yield stored.key


def _of_any(record: Mapping[str, Any], what: str) -> dict[str, Any]:
    """What an artefact says of itself, whichever device, or mask, it is of."""
    return {name: value for name, value in record.items() if name not in (what, "label")}
