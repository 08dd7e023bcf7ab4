"""A score against the memory that a pruned model takes.

At one budget all methods keep equally many experts and take the same memory, so that methods
differ by their lines across the budgets.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from mbench.core.clean_text import visible
from mbench.report import words
from mbench.report.charts import style
from mbench.report.charts.drawing import draw, note
from mbench.report.charts.style import Chart, Look, Spec
from mbench.report.statistics.boards import GroupBoards
from mbench.report.statistics.groups import RANDOM
from mbench.report.statistics.scores import Score
from mbench.report.tables.weights import weight_bytes

UNITS = "replace(format(datum.value, '~s'), regexp('(\\\\D?)$'), '\N{NO-BREAK SPACE}$1B')"
"""Vega expression for the label of a tick: 7 GB for 7e9 bytes."""

BAND = f"{RANDOM}: mean, and minimum to maximum over its seeds"


def score_by_memory(boards: GroupBoards) -> Chart | None:
    """A line per method across the budgets; None unless two budgets have a known size."""
    group, score = boards.group, boards.score
    if score is None:
        return None
    sizes, what = _sizes(boards)
    rows, band = _rows(boards, score, sizes)
    if len({row["bytes"] for row in (*rows, *band)}) < 2:
        return None
    full = score.value(group.unpruned) if group.unpruned and 1.0 in sizes else None
    unpruned = []
    if full is not None and math.isfinite(full):
        text = f"unpruned, {words.size(sizes[1.0], 'B')}: {full:.3f}"
        unpruned.append({"bytes": sizes[1.0], "value": full, "note": note("", text), "text": text})
    drawn = {row["method"] for row in rows}
    looks = {m: look for m, look in style.looks(group.methods).items() if m in drawn}
    means = [f"{RANDOM}, {words.size(row['bytes'], 'B')}: {row['value']:.3f}" for row in band]
    direction = "higher" if score.higher else "lower"
    return Chart(
        caption=f"{score.name} against memory, {direction} is better",
        drawing=draw(
            _specification(looks, rows, band, unpruned, what),
            f"{boards.id}-memory",
            f"{score.name} against memory, {group.model}",
            ". ".join([*(row["text"] for row in (*unpruned, *rows)), *means]) + ".",
        ),
        looks=looks,
        band=BAND if band else "",
    )


def _rows(
    boards: GroupBoards, score: Score, sizes: Mapping[float, int]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The marks of the methods, and the band of random pruning."""
    rows, band = [], []
    for retain, ranked in boards.placed_by(score).items():
        for standing in ranked if retain in sizes else ():
            method, summary = standing.entry.method, standing.summary
            # With preserved gates a model cannot be pruned physically, so it saves nothing.
            if standing.entry.cells[0].router != "sliced" or not math.isfinite(summary.mean):
                continue
            size = words.size(sizes[retain], "B")
            place = {"bytes": sizes[retain], "value": summary.mean, "method": method}
            text = f"{method}, {words.pruned(retain)}, {size}: {summary.mean:.3f}"
            if method == RANDOM:
                band.append({**place, "low": summary.minimum, "high": summary.maximum})
            else:
                rows.append({**place, "note": note(method, text), "text": text})
    return rows, band


def _sizes(boards: GroupBoards) -> tuple[dict[float, int], str]:
    """Bytes by retain ratio, 1 for the unpruned model, and what these bytes hold."""
    measured: dict[str, dict[float, int]] = {}
    for saving in boards.results.efficiency:
        if saving.model == boards.group.model and saving.pruned and saving.unpruned:
            sizes = measured.setdefault(saving.device, {1.0: saving.unpruned.peak_bytes})
            sizes[saving.retain] = saving.pruned.peak_bytes
    # A published checkpoint has a budget of its own, which is not measured.
    budgets = {
        b.retain for b in boards.group.budgets for e in b.entries if not e.cells[0].published
    }
    for device, sizes in measured.items():
        if budgets <= set(sizes):
            return sizes, f"peak memory while generating on {device}"
    return weight_bytes(boards), "memory of the weights"


def _specification(
    looks: Mapping[str, Look],
    rows: Sequence[dict[str, Any]],
    band: Sequence[dict[str, Any]],
    unpruned: Sequence[dict[str, Any]],
    what: str,
) -> Spec:
    ends = [row[end] for row in band for end in ("low", "high")]
    y = style.figures([*ends, *(row["value"] for row in (*rows, *unpruned))])
    x = style.figures([row["bytes"] for row in (*rows, *band, *unpruned)], ticks=5)
    x |= {"field": "bytes", "title": words.shorten(visible(what), 60)}
    x["axis"] |= {"labelExpr": UNITS}
    colour, shape = (style.by_method(looks, part) for part in ("colour", "shape"))
    value = {**y, "field": "value"}
    full = style.layer("full", "point", unpruned, x=x, y=value)
    full["mark"] |= {"shape": style.SHAPES[2]}
    name = style.layer("name", "text", unpruned, x=x, y=value, text={"value": "unpruned"})
    name["mark"] |= {"dx": -8}
    return style.specification(
        [
            style.layer("band", "area", band, x=x, y={**y, "field": "low"}, y2={"field": "high"}),
            style.layer("mean", "line", band, x=x, y=value),
            style.lines(rows, x=x, y=value, color=colour),
            style.layer("point", "point", rows, x=x, y=value, color=colour, shape=shape),
            full,
            name,
        ],
        width=style.WIDTH - 16,  # a size at the very end is a wide label
        padding={**style.MARGINS, "right": style.MARGINS["right"] + 16},
    )
