"""An optional stage of a run: what pruning saves, measured on physically pruned models.

How large and how fast a pruned model is depends on how many experts it keeps and hardly on which,
so one mask per budget is measured, with the experts that stay spread evenly. Unlike any other
artefact these depend on the machine, which is therefore part of their key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from mbench.core.errors import StoreError
from mbench.core.results import Status
from mbench.storage.store import key_of

if TYPE_CHECKING:
    import pandas as pd

    from mbench.core.suite import EfficiencySpec
    from mbench.run.session import ModelSession


@dataclass(frozen=True)
class Spread:
    """Tokens per second over the repetitions."""

    minimum: float
    median: float
    maximum: float


@dataclass(frozen=True)
class Footprint:
    """One model, full or pruned."""

    parameters: int
    """Tied ones counted once; only those that a checkpoint of the family has."""
    checkpoint_bytes: int
    """Parameters in the dtype that the checkpoint is stored in, and the buffers it has."""
    weight_bytes: int
    """Parameters and buffers in memory, in the dtype the suite asks for."""
    peak_bytes: int
    """Weights, and the most that was allocated beside them while one batch was generated."""
    prefill: Spread
    """Tokens of the prompts read per second."""
    decode: Spread
    """Tokens generated per second, after the first one of each sequence."""


@dataclass(frozen=True)
class Saving:
    """A pruned model beside the unpruned one, both measured in turns in one process."""

    model: str
    retain: float
    kept: int
    """Experts kept per layer."""
    device: str
    status: Status
    reason: str
    allocations: str = ""
    """What counted the bytes that were allocated."""
    unpruned: Footprint | None = None
    pruned: Footprint | None = None

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Saving:
        """What `dataclasses.asdict` gave."""
        sides = {}
        for side in ("unpruned", "pruned"):
            values = data[side]
            if values is not None:
                speeds = {name: Spread(**values[name]) for name in ("prefill", "decode")}
                sides[side] = Footprint(**values | speeds)
        return cls(**{**data, **sides})


def measure_efficiency(session: ModelSession, before: Callable[[], None]) -> None:
    """Measure every budget of the loaded model, if the suite asks for it.

    `before` is called first, to stop whatever shares the machine. A failure costs its budget; what
    is stored is not measured again.
    """
    from mbench.run.session import reason

    suite = session.plan.suite
    spec = suite.efficiency
    if spec is None:
        return
    from mbench.run.footprint import device_name

    before()
    device = device_name()
    for retain in suite.retain:
        kept = session.plan.kept(session.model, retain)
        key = _key(session, spec, kept, device)
        stored = session.store.read_json("efficiency", key)
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
                problem = {"status": "failed", "reason": reason(error)}
                session.outcome.efficiency.append(Saving(**common, **problem))
                session.progress.event("efficiency", cell=label, **common, **problem)
                continue
            session.store.write_json("efficiency", key, stored)
            session.progress.event("efficiency", cell=label, **common, status="ok")
        entry = {**common, "status": "ok", "reason": "", **stored}
        session.outcome.efficiency.append(Saving.from_json(entry))


def _key(session: ModelSession, spec: EfficiencySpec, kept: int, device: str) -> str:
    from mbench.plan.models import versions

    return key_of(
        {
            "kind": "efficiency",
            "versions": dict(versions()),
            "model": session.model.key,
            "dtype": session.model.dtype,
            "kept": kept,
            "settings": spec.model_dump(),
            "device": device,
        }
    )


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


def efficiency_table(savings: tuple[Saving, ...]) -> pd.DataFrame:
    """Two rows for each budget, the unpruned model's first, as `efficiency.csv` has them.

    Columns: `model`, `retain` (the budget that both rows belong to), `variant` (`unpruned` or
    `pruned`), `experts_kept` (of the pruned model), `parameters`, `checkpoint_bytes`,
    `weight_bytes` (in memory), `peak_bytes` (with what one batch allocates), `allocations` (what
    counted these), `prefill_...` and `decode_...` with `min`, `median` and `max` over the
    repetitions in tokens per second, `device`, `status`. A budget that failed has no figures.
    """
    import pandas as pd

    return pd.DataFrame([row for saving in savings for row in _rows(saving)])


def _rows(saving: Saving) -> Iterator[dict[str, Any]]:
    for variant in ("unpruned", "pruned"):
        found: Footprint | None = getattr(saving, variant)
        row: dict[str, Any] = {
            "model": saving.model,
            "retain": saving.retain,
            "variant": variant,
            "experts_kept": saving.kept,
        }
        for name in ("parameters", "checkpoint_bytes", "weight_bytes", "peak_bytes"):
            row[name] = getattr(found, name, None)
        row["allocations"] = saving.allocations
        for stage in ("prefill", "decode"):
            speed: Spread | None = getattr(found, stage, None)
            for short, long in (("min", "minimum"), ("median", "median"), ("max", "maximum")):
                row[f"{stage}_{short}"] = getattr(speed, long, None)
        yield {**row, "device": saving.device, "status": saving.status}
