"""What pruning saves in weights, what calibration reads, and what the run took."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from mbench.core.model_facts import DTYPE_BYTES, ModelFacts
from mbench.core.provenance import MethodSettings, Provenance
from mbench.report import words
from mbench.report.statistics.groups import Group
from mbench.report.tables.table import MISSING, Cell, Column, Row, Table
from mbench.report.words import percent


def _parameters(facts: ModelFacts, kept: int) -> int:
    """Of the model when every layer keeps `kept` experts."""
    return facts.parameters - len(facts.layers) * (facts.num_experts - kept) * (
        facts.expert_parameters
    )


def weight_bytes(group: Group, provenance: Provenance) -> dict[float, int]:
    """Bytes of the weights by retain ratio, 1 for the unpruned model; empty where not known."""
    model = provenance.models.get(group.model)
    if model is None or model.dtype not in DTYPE_BYTES:
        return {}
    kept = {setting.retain: setting.kept for setting in group.settings}
    return {
        retain: _parameters(model.facts, count) * DTYPE_BYTES[model.dtype]
        for retain, count in (kept | {1.0: model.facts.num_experts}).items()
    }


def weights(group: Group, provenance: Provenance, id: str) -> Table | None:
    """Parameters and bytes of the weights at every budget, from the model's facts."""
    model = provenance.models.get(group.model)
    if model is None:
        return None
    facts = model.facts
    total, experts = facts.parameters, facts.num_experts
    sizes = weight_bytes(group, provenance)
    rows = []
    budgets = [("unpruned", 1.0, experts)]
    budgets += [(percent(s.retain), s.retain, s.kept) for s in group.settings]
    for name, retain, kept in budgets:
        own, size = _parameters(facts, kept), sizes.get(retain)
        rows.append(
            Row(
                Cell(name),
                (
                    Cell(f"{kept} of {experts}", sort=kept),
                    Cell(words.count(own), sort=own),
                    MISSING if size is None else Cell(words.size(size, "B"), sort=size),
                    Cell(percent(round(own / total, 3)), sort=own / total),
                ),
            )
        )
    columns = (
        Column("Experts kept", number=False),
        Column("Per layer"),
        Column("Parameters"),
        Column("Weights", f"in {model.dtype}"),
        Column("Of the model"),
    )
    return Table(id, f"Weights left: {group.model}", columns, tuple(rows))


def calibration(group: Group, provenance: Provenance, id: str) -> Table | None:
    """The texts each method looks at and their tokens, its candidate's included."""
    methods = provenance.methods.get(group.model, {})
    profiles = provenance.profiles_of(group.model)
    if not methods:
        return None
    rows = []
    for name in group.methods:
        if name not in methods:
            continue
        used = list(dict.fromkeys(_corpora(name, methods)))
        read = None
        if all(corpus in profiles for corpus in used):
            read = sum(profiles[corpus].tokens for corpus in used)
        rows.append(
            Row(
                Cell(name),
                (
                    Cell(", ".join(used) or "none"),
                    Cell(methods[name].candidate or "–"),
                    MISSING
                    if read is None
                    else Cell(f"{read:,}".replace(",", "\u2009"), sort=read),
                ),
            )
        )
    columns = (
        Column("Method", number=False),
        Column("Calibration texts", number=False),
        Column("Candidate", number=False),
        Column("Calibration", "tokens"),
    )
    return Table(id, f"What each method reads: {group.model}", columns, tuple(rows))


def _corpora(method: str, methods: Mapping[str, MethodSettings]) -> Iterator[str]:
    """The method's own corpora and those of the candidate it starts from."""
    yield from methods[method].corpora
    candidate = methods[method].candidate
    if candidate is not None:
        yield from _corpora(candidate, methods)


def run_costs(provenance: Provenance) -> tuple[tuple[str, str], ...]:
    """What the one run that gave these results computed; merged ones tell it run by run."""
    if len(provenance.runs) > 1:
        return ()
    cost = provenance.runs[0].cost
    tokens = f"{cost.forward_tokens:,}".replace(",", "\u2009")
    return (
        ("Forward tokens", tokens),
        *((f"Seconds, {stage}", f"{spent:.1f}") for stage, spent in cost.seconds.items()),
        *(
            (f"Peak memory, {where}", words.size(size, "B"))
            for where, size in cost.peak_memory.items()
        ),
    )
