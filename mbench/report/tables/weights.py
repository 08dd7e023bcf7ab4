"""Parameters and memory of the weights after pruning."""

from __future__ import annotations

import numpy as np

from mbench.core.model_facts import DTYPE_BYTES, ModelFacts
from mbench.core.stand_ins import Constants
from mbench.report.statistics.boards import GroupBoards
from mbench.report.tables.table import MISSING, Cell, Column, Row, Table
from mbench.report.words import count, percent, pruned, size


def _parameters(facts: ModelFacts, kept: int) -> int:
    """Number of parameters if every layer keeps `kept` experts, or `kept` on average."""
    row = np.arange(facts.num_experts) < kept
    return facts.parameters_left(np.tile(row, (len(facts.layers), 1)))


def _with_constants(boards: GroupBoards) -> dict[float, int]:
    """Number of parameters by retain ratio, where a method has constants for dropped experts."""
    results, group = boards.results, boards.group
    facts = results.provenance.models[group.model].facts
    found = {}
    for cell in results.cells:
        place = cell.model, cell.mask
        stand_in = results.stand_ins.get(place)
        if cell.model == group.model and isinstance(stand_in, Constants):
            found[cell.retain] = facts.parameters_left(results.masks[place], stand_in)
    return found


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
    facts, width = model.facts, DTYPE_BYTES.get(model.dtype)
    experts, constants = facts.num_experts, _with_constants(boards)
    budgets = [("unpruned", experts, facts.parameters)]
    for budget in boards.group.budgets:
        name = pruned(budget.retain)
        budgets.append((name, budget.kept, _parameters(facts, budget.kept)))
        if budget.retain in constants:
            budgets.append((f"{name}, with constants", budget.kept, constants[budget.retain]))
    rows = []
    for name, kept, left in budgets:
        bytes_left = None if width is None else left * width
        share = left / facts.parameters
        cells = (
            Cell(f"{kept} of {experts}", sort=kept),
            Cell(count(left), sort=left),
            MISSING if bytes_left is None else Cell(size(bytes_left, "B"), sort=bytes_left),
            Cell(percent(round(share, 3)), sort=share),
        )
        rows.append(Row(Cell(name), cells))
    columns = (
        Column("Budget", number=False),
        Column("Kept per layer"),
        Column("Parameters"),
        Column("Weights", f"in {model.dtype}"),
        Column("Of the model"),
    )
    return Table(
        f"{boards.id}-weights", f"Weights after pruning: {boards.group.model}", columns, tuple(rows)
    )
