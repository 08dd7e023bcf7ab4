"""An optional stage of a run: what pruning saves, measured on physically pruned models.

How large and how fast a pruned model is depends on how many experts it keeps and hardly on which,
so one mask per budget is measured, with the experts that stay spread evenly. Unlike any other
artefact these depend on the machine, which is therefore part of their key.
"""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from mbench.core.cell_results import budget_label
from mbench.core.errors import StoreError, caught
from mbench.core.savings import Saving
from mbench.plan.fact_keys import efficiency_key
from mbench.run.early.hours import NO_TIME
from mbench.storage.records import from_plain, to_plain
from mbench.storage.store import Key, Store

if TYPE_CHECKING:
    from mbench.core.suite import EfficiencySpec
    from mbench.run.session import ModelSession


def measure_efficiency(session: ModelSession, until: float = math.inf) -> None:
    """Measure every budget of the loaded model, if the suite asks for it.

    A failure costs its budget; what is stored is not measured again. Nothing is begun that is not
    expected to end before `until`, on the monotonic clock: this may be called again for it.
    """
    suite = session.plan.suite
    spec = suite.efficiency
    if spec is None:
        return
    from mbench.run.footprint import device_name

    device = device_name()
    model, plan = session.model, session.plan
    before = [
        each
        for each in session.outcome.efficiency
        if each.model != model.name or each.status != NO_TIME.status
    ]
    dealt_with = {each.retain for each in before if each.model == model.name}
    asked = [
        Saving(model.name, retain, plan.kept(model, retain), device, "ok", "")
        for retain in suite.retain
        if retain not in dealt_with
    ]

    def done(saving: Saving) -> bool:
        return _stored(session.store, _key(session, spec, saving)) is not None

    def name(saving: Saving) -> str:
        return f"efficiency {_key(session, spec, saving).digest}"

    measured: dict[float, Saving] = {}

    def do(saving: Saving) -> None:
        start = time.monotonic()
        if start + session.efficiency_seconds < until:
            measured[saving.retain] = _measured(session, spec, saving)
            session.efficiency_seconds = time.monotonic() - start
        else:
            late = replace(saving, status=NO_TIME.status, reason=NO_TIME.reason)
            measured[saving.retain] = late

    session.sharing.each(asked, name, done, do)
    found = [measured.get(saving.retain) or _measured(session, spec, saving) for saving in asked]
    session.outcome.efficiency[:] = before + found


def lacks_efficiency(session: ModelSession) -> bool:
    """Whether a budget is still to be measured here."""
    spec = session.plan.suite.efficiency
    if spec is None:
        return False
    from mbench.run.footprint import device_name

    device, settings = device_name(), spec.model_dump()
    plan, model = session.plan, session.model
    kept = (plan.kept(model, retain) for retain in plan.suite.retain)
    keys = (efficiency_key(plan.code, model.identity, k, settings, device) for k in kept)
    return any(_stored(session.store, key) is None for key in keys)


def _measured(session: ModelSession, spec: EfficiencySpec, saving: Saving) -> Saving:
    """The budget's figures, from the store or measured now; or why there are none."""
    kept, device = saving.kept, saving.device
    key = _key(session, spec, saving)
    stored = _stored(session.store, key)
    if stored is not None:
        # The key names neither: another suite may call the model or write the ratio differently.
        return replace(stored, model=saving.model, retain=saving.retain)
    label = f"{budget_label(saving.model, saving.retain)} efficiency"
    session.store.require_writable(label)
    session.progress.stage(label)
    common = {"model": saving.model, "retain": saving.retain, "kept": kept, "device": device}
    try:
        with session.timed("efficiency"):
            measured = _measure(session, spec, saving)
    except StoreError:
        raise
    except Exception as error:
        reason = caught(error)
        session.progress.event("efficiency", cell=label, **common, status="failed", reason=reason)
        return replace(saving, status="failed", reason=reason)
    session.store.write_json(key, to_plain(measured), replace=True)
    session.progress.event("efficiency", cell=label, **common, status="ok")
    return measured


def _key(session: ModelSession, spec: EfficiencySpec, saving: Saving) -> Key:
    code, identity = session.plan.code, session.model.identity
    return efficiency_key(code, identity, saving.kept, spec.model_dump(), saving.device)


def _stored(store: Store, key: Key) -> Saving | None:
    """What was measured before; like all that is damaged, a malformed record counts as absent."""
    try:
        return from_plain(Saving, store.read_json(key))
    except ValueError:
        return None


def _measure(session: ModelSession, spec: EfficiencySpec, saving: Saving) -> Saving:
    from mbench.moe.prune import prune
    from mbench.run.footprint import compare, even_mask

    loaded = session.load()
    keep = even_mask(loaded.layers, saving.kept)
    size = session.outcome.sizes.get(session.model.name)
    stored = (size.bytes, size.bytes_left(keep)) if size else None
    pruned = prune(loaded.model, loaded.layers, keep)
    unpruned, smaller, allocations = compare(loaded.model, pruned, spec, loaded.facts, stored)
    return replace(saving, allocations=allocations, unpruned=unpruned, pruned=smaller)
