"""What pruning saves in weights, what calibration reads, and what the run took."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mbench.core.model_facts import DTYPE_BYTES
from mbench.report import words
from mbench.report.statistics.groups import Group
from mbench.report.tables.table import MISSING, Cell, Column, Row, Table
from mbench.report.words import percent

SIZES = ("parameters", "expert_parameters", "num_experts", "layers", "dtype")


def model_facts(group: Group, provenance: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The model's `SIZES`; None unless all are known."""
    facts = provenance.get("models", {})
    facts = facts.get(group.model, {}) if isinstance(facts, Mapping) else {}
    return facts if all(name in facts for name in SIZES) else None


def _parameters(facts: Mapping[str, Any], kept: int) -> int:
    """Of the model when every layer keeps `kept` experts."""
    dropped = len(facts["layers"]) * (facts["num_experts"] - kept)
    own: int = facts["parameters"] - dropped * facts["expert_parameters"]
    return own


def weight_bytes(group: Group, provenance: Mapping[str, Any]) -> dict[float, int]:
    """Bytes of the weights by retain ratio, 1 for the unpruned model; empty where not known."""
    facts = model_facts(group, provenance)
    if facts is None or facts["dtype"] not in DTYPE_BYTES:
        return {}
    kept = {setting.retain: setting.kept for setting in group.settings}
    return {
        retain: _parameters(facts, count) * DTYPE_BYTES[facts["dtype"]]
        for retain, count in (kept | {1.0: facts["num_experts"]}).items()
    }


def weights(group: Group, provenance: Mapping[str, Any], id: str) -> Table | None:
    """Parameters and bytes of the weights at every budget, from the model's facts."""
    facts = model_facts(group, provenance)
    if facts is None:
        return None
    total, experts = facts["parameters"], facts["num_experts"]
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
        Column("Weights", f"in {facts['dtype']}"),
        Column("Of the model"),
    )
    return Table(id, f"Weights left: {group.model}", columns, tuple(rows))


def methods_of(group: Group, provenance: Mapping[str, Any]) -> Mapping[str, Mapping[str, str]]:
    """What makes up each method of a model, by part; empty where results do not say."""
    return provenance.get("settings", {}).get("methods", {}).get(group.model, {})


def calibration(group: Group, provenance: Mapping[str, Any], id: str) -> Table | None:
    """The texts each method looks at and their tokens, its candidate's included."""
    methods = methods_of(group, provenance)
    profiles = provenance.get("profiles", {})
    if not methods:
        return None
    rows = []
    for name in group.methods:
        if name not in methods:
            continue
        used = list(dict.fromkeys(_corpora(name, methods)))
        tokens = [profiles.get(f"{group.model} {corpus}", {}).get("tokens") for corpus in used]
        known = all(count is not None for count in tokens)
        read = sum(tokens) if known else None
        rows.append(
            Row(
                Cell(name),
                (
                    Cell(", ".join(used) or "none"),
                    Cell(methods[name].get("candidate", "–")),
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


def _corpora(method: str, methods: Mapping[str, Any]) -> Iterator[str]:
    """The method's own corpora and those of the candidate it starts from."""
    facts = methods.get(method)
    if facts is None:
        return
    yield from filter(None, facts.get("corpora", "").split(", "))
    if facts.get("candidate", method) != method:
        yield from _corpora(facts["candidate"], methods)


def run_costs(provenance: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """What the run that wrote these results computed; what was stored before cost nothing."""
    run = provenance.get("this run", {})
    found = []
    if "forward tokens" in run:
        found.append(("Forward tokens", f"{run['forward tokens']:,}".replace(",", "\u2009")))
    for stage, spent in run.get("seconds", {}).items():
        found.append((f"Seconds, {stage}", f"{spent:.1f}"))
    for where, size in run.get("peak memory", {}).items():
        found.append((f"Peak memory, {where}", words.size(size, "B")))
    return tuple(found)
