"""Parameters and memory of the weights after pruning."""

from __future__ import annotations

from mbench.core.model_facts import DTYPE_BYTES, ModelFacts
from mbench.report.statistics.boards import GroupBoards
from mbench.report.tables.table import MISSING, Cell, Column, Row, Table
from mbench.report.words import count, percent, size


def _parameters(facts: ModelFacts, kept: int) -> int:
    """Number of parameters if every layer keeps `kept` experts."""
    dropped = len(facts.layers) * (facts.num_experts - kept)
    return facts.parameters - dropped * facts.expert_parameters


def weight_bytes(boards: GroupBoards) -> dict[float, int]:
    """Bytes of the weights by retain ratio, 1 for the unpruned model; empty if not known."""
    model = boards.results.provenance.models.get(boards.group.model)
    if model is None or model.dtype not in DTYPE_BYTES:
        return {}
    kept = {budget.retain: budget.kept for budget in boards.group.budgets}
    return {
        retain: _parameters(model.facts, experts) * DTYPE_BYTES[model.dtype]
        for retain, experts in (kept | {1.0: model.facts.num_experts}).items()
    }


def weights(boards: GroupBoards) -> Table | None:
    """Parameters and bytes of the weights at every budget, from the model's facts."""
    model = boards.results.provenance.models.get(boards.group.model)
    if model is None:
        return None
    facts, sizes = model.facts, weight_bytes(boards)
    experts = facts.num_experts
    budgets = [("unpruned", 1.0, experts)]
    budgets += [(percent(b.retain), b.retain, b.kept) for b in boards.group.budgets]
    rows = []
    for name, retain, kept in budgets:
        left, bytes_left = _parameters(facts, kept), sizes.get(retain)
        share = left / facts.parameters
        cells = (
            Cell(f"{kept} of {experts}", sort=kept),
            Cell(count(left), sort=left),
            MISSING if bytes_left is None else Cell(size(bytes_left, "B"), sort=bytes_left),
            Cell(percent(round(share, 3)), sort=share),
        )
        rows.append(Row(Cell(name), cells))
    columns = (
        Column("Experts kept", number=False),
        Column("Per layer"),
        Column("Parameters"),
        Column("Weights", f"in {model.dtype}"),
        Column("Of the model"),
    )
    return Table(
        f"{boards.id}-weights", f"Weights after pruning: {boards.group.model}", columns, tuple(rows)
    )
