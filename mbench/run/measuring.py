"""An optional stage of a run: what pruning saves, measured on physically pruned models.

How large and how fast a pruned model is depends on how many experts it keeps and hardly on which,
so one mask per budget is measured, with the experts that stay spread evenly. Unlike any other
artefact these depend on the machine, which is therefore part of their key.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from mbench.core.errors import StoreError, caught
from mbench.core.results import Saving
from mbench.plan.keys import efficiency_key

if TYPE_CHECKING:
    from mbench.core.suite import EfficiencySpec
    from mbench.run.session import ModelSession


def measure_efficiency(session: ModelSession, before: Callable[[], None]) -> None:
    """Measure every budget of the loaded model, if the suite asks for it.

    `before` is called first, to stop whatever shares the machine. A failure costs its budget; what
    is stored is not measured again.
    """
    suite = session.plan.suite
    spec = suite.efficiency
    if spec is None:
        return
    from mbench.run.footprint import device_name

    before()
    device = device_name()
    for retain in suite.retain:
        kept = session.plan.kept(session.model, retain)
        key = efficiency_key(
            session.plan.code, session.model.identity, kept, spec.model_dump(), device
        )
        stored = session.store.read_json(key)
        common = {"model": session.model.name, "retain": retain, "kept": kept, "device": device}
        if stored is None:
            label = f"{session.model.name} {100 * retain:g}% efficiency"
            session.progress.stage(label)
            try:
                with session.timed("efficiency"):
                    stored = _measure(session, spec, kept)
            except StoreError:
                raise
            except Exception as error:
                problem = {"status": "failed", "reason": caught(error)}
                session.outcome.efficiency.append(Saving(**common, **problem))
                session.progress.event("efficiency", cell=label, **common, **problem)
                continue
            session.store.write_json(key, stored)
            session.progress.event("efficiency", cell=label, **common, status="ok")
        entry = {**common, "status": "ok", "reason": "", **stored}
        session.outcome.efficiency.append(Saving.from_json(entry))


def _measure(session: ModelSession, spec: EfficiencySpec, kept: int) -> dict[str, Any]:
    from mbench.moe.prune import prune
    from mbench.run.footprint import compare, even_mask

    loaded = session.load()
    pruned = prune(loaded.model, loaded.layers, even_mask(loaded.layers, kept))
    unpruned, smaller, allocations = compare(loaded.model, pruned, spec, loaded.facts)
    return {
        "allocations": allocations,
        "unpruned": asdict(unpruned),
        "pruned": asdict(smaller),
    }
