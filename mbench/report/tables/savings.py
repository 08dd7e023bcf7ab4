"""What pruning saves: size, memory and speed by budget, and the score against memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mbench.core.savings import Footprint, Saving, Spread
from mbench.report.statistics.boards import GroupBoards, RunBoards
from mbench.report.statistics.scores import Score
from mbench.report.tables.table import MISSING, Cell, Column, Row, Table
from mbench.report.words import count, number, percent, size

SIZE = ("Parameters", "Checkpoint", "Peak memory")
SPEED = ("Prefill", "Decode")


@dataclass(frozen=True)
class Savings:
    """The tables of one model on one machine."""

    model: str
    device: str
    allocations: str
    """How allocations were counted."""
    budgets: Table
    scores: Table | None
    """Score against memory; None without a score or measurements."""


def savings(run: RunBoards) -> tuple[Savings, ...]:
    """By model and machine; empty if the suite does not measure efficiency."""
    groups = {boards.group.model: boards for boards in run.groups}
    tables = []
    places = dict.fromkeys((each.model, each.device) for each in run.results.efficiency)
    for index, (model, device) in enumerate(places, 1):
        here = [s for s in run.results.efficiency if (s.model, s.device) == (model, device)]
        here.sort(key=lambda saving: -saving.retain)
        measured = [saving for saving in here if saving.pruned is not None]
        tables.append(
            Savings(
                model=model,
                device=device,
                allocations=next((saving.allocations for saving in measured), ""),
                budgets=_budgets(model, here, f"savings-{index}"),
                scores=_scores(groups[model], run.score, measured, f"savings-{index}-scores")
                if run.score and measured
                else None,
            )
        )
    return tuple(tables)


def _budgets(model: str, savings: Sequence[Saving], id: str) -> Table:
    columns = (
        Column("Experts pruned"),
        *(Column(name, "of the full model's") for name in SIZE),
        *(Column(name, "tokens/s: median, range, × full model's") for name in SPEED),
    )
    rows = []
    for saving in savings:
        head = Cell(percent(1 - saving.retain), sort=1 - saving.retain)
        if saving.pruned is None or saving.unpruned is None:
            failed = Cell(saving.status, (saving.reason,), kind="failed")
            rows.append(Row(head, (failed, *(MISSING for _ in columns[2:]))))
        else:
            rows.append(Row(head, tuple(_cells(saving.pruned, saving.unpruned))))
    return Table(id, f"What a pruned {model} saves", columns, tuple(rows))


def _cells(pruned: Footprint, full: Footprint) -> Iterator[Cell]:
    for name in ("parameters", "checkpoint_bytes", "peak_bytes"):
        left, whole = getattr(pruned, name), getattr(full, name)
        text, full_text = (
            count(n) if name == "parameters" else size(n, "B") for n in (left, whole)
        )
        yield Cell(text, (f"{percent(round(left / whole, 3))} of {full_text}",), left)
    for name in ("prefill", "decode"):
        speed: Spread = getattr(pruned, name)
        whole_speed: Spread = getattr(full, name)
        spread = f"{speed.minimum:,.0f}–{speed.maximum:,.0f}"
        yield Cell(
            f"{speed.median:,.0f}",
            (spread, f"{speed.median / whole_speed.median:.2f} × {whole_speed.median:,.0f}"),
            speed.median,
        )


def _scores(boards: GroupBoards, score: Score, measured: Sequence[Saving], id: str) -> Table:
    """Score and memory of every method at every measured budget."""
    group = boards.group
    footprints = {saving.retain: saving.pruned for saving in measured}
    columns = ("Method", "Experts pruned", "Peak memory", "Checkpoint", score.name)
    rows = []
    full = measured[0].unpruned
    if group.unpruned is not None and full is not None:
        rows.append(_score_row("unpruned", 1.0, full, score.value(group.unpruned), score, "pinned"))
    for budget in group.budgets:
        footprint = footprints.get(budget.retain)
        if footprint is None:
            continue
        for entry in budget.entries:
            # With preserved gates a model cannot be pruned physically, so it saves nothing.
            if entry.cells[0].router != "sliced":
                continue
            summary = entry.summary(score.value)
            value = None if summary is None else summary.mean
            rows.append(_score_row(entry.method, budget.retain, footprint, value, score))
    heads = (Column(columns[0], number=False), *(Column(name) for name in columns[1:]))
    return Table(id, f"{score.name} of {group.model} against memory", heads, tuple(rows))


def _score_row(
    name: str,
    retain: float,
    footprint: Footprint,
    value: float | None,
    score: Score,
    kind: str = "",
) -> Row:
    return Row(
        Cell(name),
        (
            Cell(percent(1 - retain), sort=1 - retain),
            Cell(size(footprint.peak_bytes, "B"), sort=footprint.peak_bytes),
            Cell(size(footprint.checkpoint_bytes, "B"), sort=footprint.checkpoint_bytes),
            MISSING if value is None else Cell(number(score.name, value), sort=value),
        ),
        kind,
    )
