"""What pruning saves: size, memory and speed by budget, and the score against memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mbench.core.results import Footprint, Results, Saving, Spread
from mbench.report.statistics.groups import Entry, Group, Score, arrange, primary_score
from mbench.report.statistics.seed_summaries import summarize
from mbench.report.tables.table import MISSING, Cell, Column, Row, Table
from mbench.report.words import count, number, percent, size

SIZE = ("Parameters", "Checkpoint", "Peak memory")
SPEED = ("Prefill", "Decode")


@dataclass(frozen=True)
class Savings:
    """One model's tables on one machine."""

    model: str
    device: str
    allocations: str
    """What counted the allocations."""
    budgets: Table
    scores: Table | None
    """Score against memory; None for a suite without a score, or where nothing was measured."""


def savings(results: Results) -> tuple[Savings, ...]:
    """What was measured, by model and machine; empty where the suite does not ask for it."""
    score = primary_score(results)
    groups = {group.model: group for group in arrange(results)}
    found = []
    places = dict.fromkeys((each.model, each.device) for each in results.efficiency)
    for index, (model, device) in enumerate(places, 1):
        own = sorted(
            (each for each in results.efficiency if (each.model, each.device) == (model, device)),
            key=lambda saving: saving.retain,
        )
        measured = [each for each in own if each.pruned is not None]
        found.append(
            Savings(
                model=model,
                device=device,
                allocations=next((each.allocations for each in measured), ""),
                budgets=_budgets(model, own, f"savings-{index}"),
                scores=_scores(groups[model], score, measured, f"savings-{index}-scores")
                if score and measured
                else None,
            )
        )
    return tuple(found)


def _budgets(model: str, own: list[Saving], id: str) -> Table:
    columns = (
        Column("Experts kept"),
        *(Column(name, "of the full model's") for name in SIZE),
        *(Column(name, "tokens/s: median, range, × full model's") for name in SPEED),
    )
    rows = []
    for saving in own:
        head = Cell(percent(saving.retain), sort=saving.retain)
        if saving.pruned is None or saving.unpruned is None:
            failed = Cell(saving.status, (saving.reason,), kind="failed")
            rows.append(Row(head, (failed, *(MISSING for _ in columns[2:]))))
        else:
            rows.append(Row(head, tuple(_cells(saving.pruned, saving.unpruned))))
    return Table(id, f"What a pruned {model} saves", columns, tuple(rows))


def _cells(pruned: Footprint, full: Footprint) -> Iterator[Cell]:
    for name in ("parameters", "checkpoint_bytes", "peak_bytes"):
        own, whole = getattr(pruned, name), getattr(full, name)
        text, full_text = (count(n) if name == "parameters" else size(n, "B") for n in (own, whole))
        yield Cell(text, (f"{percent(round(own / whole, 3))} of {full_text}",), own)
    for name in ("prefill", "decode"):
        speed: Spread = getattr(pruned, name)
        whole_speed: Spread = getattr(full, name)
        spread = f"{speed.minimum:,.0f}–{speed.maximum:,.0f}"
        yield Cell(
            f"{speed.median:,.0f}",
            (spread, f"{speed.median / whole_speed.median:.2f} × {whole_speed.median:,.0f}"),
            speed.median,
        )


def _scores(group: Group, score: Score, measured: list[Saving], id: str) -> Table:
    """Methods at every measured budget; the data of a plot of score against memory."""
    footprints = {saving.retain: saving.pruned for saving in measured}
    columns = ("Method", "Experts kept", "Peak memory", "Checkpoint", score.name)
    rows = []
    full = measured[0].unpruned
    if group.unpruned is not None and full is not None:
        rows.append(_score_row("unpruned", 1.0, full, score.value(group.unpruned), score, "pinned"))
    for setting in group.settings:
        footprint = footprints.get(setting.retain)
        if footprint is None:
            continue
        for entry in setting.entries:
            # With preserved gates a model cannot be pruned physically, so it saves nothing.
            if entry.cells[0].router != "sliced":
                continue
            value = _mean(entry, score)
            rows.append(_score_row(entry.method, setting.retain, footprint, value, score))
    heads = (Column(columns[0], number=False), *(Column(name) for name in columns[1:]))
    return Table(id, f"{score.name} of {group.model} against memory", heads, tuple(rows))


def _mean(entry: Entry, score: Score) -> float | None:
    """The mean over seeds, None unless all have a score."""
    values = [score.value(cell) for cell in entry.cells]
    present = [value for value in values if value is not None]
    return summarize(present).mean if len(present) == len(values) else None


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
            Cell(percent(retain), sort=retain),
            Cell(size(footprint.peak_bytes, "B"), sort=footprint.peak_bytes),
            Cell(size(footprint.checkpoint_bytes, "B"), sort=footprint.checkpoint_bytes),
            MISSING if value is None else Cell(number(score.name, value), sort=value),
        ),
        kind,
    )
