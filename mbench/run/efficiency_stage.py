"""An optional stage of a run: what pruning saves, measured on physically pruned models.

How large and how fast a pruned model is depends on how many experts it keeps and hardly on which,
so one mask per budget is measured, with the experts that stay spread evenly. Unlike any other
artefact these depend on the machine, which is therefore part of their key.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from mbench.core.errors import StoreError, caught
from mbench.core.results import Saving, budget_label
from mbench.plan.keys import efficiency_key

if TYPE_CHECKING:
    from mbench.core.suite import EfficiencySpec
    from mbench.run.session import ModelSession


def measure_efficiency(session: ModelSession) -> None:
    """Measure every budget of the loaded model, if the suite asks for it.

    A failure costs its budget; what is stored is not measured again.
    """
    suite = session.plan.suite
    spec = suite.efficiency
    if spec is None:
        return
    from mbench.run.footprint import device_name

    device = device_name()
    for retain in suite.retain:
        kept = session.plan.kept(session.model, retain)
        saving = Saving(session.model.name, retain, kept, device, "ok", "")
        session.outcome.efficiency.append(_measured(session, spec, saving))


def _measured(session: ModelSession, spec: EfficiencySpec, saving: Saving) -> Saving:
    """The budget's figures, from the store or measured now; or why there are none."""
    kept, device = saving.kept, saving.device
    key = efficiency_key(session.plan.code, session.model.identity, kept, spec.model_dump(), device)
    stored = session.store.read_json(key)
    if stored is None:
        label = f"{budget_label(saving.model, saving.retain)} efficiency"
        session.progress.stage(label)
        common = {"model": saving.model, "retain": saving.retain, "kept": kept, "device": device}
        try:
            with session.timed("efficiency"):
                stored = _measure(session, spec, kept)
        except StoreError:
            raise
        except Exception as error:
            reason = caught(error)
            session.progress.event(
                "efficiency", cell=label, **common, status="failed", reason=reason
            )
            return replace(saving, status="failed", reason=reason)
        session.store.write_json(key, stored)
        session.progress.event("efficiency", cell=label, **common, status="ok")
    return Saving.from_json({**asdict(saving), **stored})


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
