"""A score against the memory that a pruned model takes.

At one budget all methods keep equally many experts and take the same memory, so that methods are
told apart by their lines across the budgets.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from mbench.core.results import Results
from mbench.report import words
from mbench.report.charts import style as charts
from mbench.report.charts.drawing import draw, note
from mbench.report.statistics.groups import RANDOM, Group, Score
from mbench.report.statistics.ranking import Standing
from mbench.report.tables.costs import weight_bytes

UNITS = "replace(format(datum.value, '~s'), regexp('(\\\\D?)$'), '\N{NO-BREAK SPACE}$1B')"
"""A tick's label from its bytes: 7 GB for 7e9 (Vega expression)."""

BAND = f"{RANDOM}: mean, and minimum to maximum over its seeds"


def memory_chart(
    results: Results,
    group: Group,
    score: Score,
    standings: Mapping[float, Sequence[Standing]],
    id: str,
) -> charts.Chart | None:
    """Lines across the budgets; None where fewer than two budgets have a known size."""
    sizes, what = _sizes(results, group)
    rows: list[dict[str, Any]] = []
    band: list[dict[str, Any]] = []
    for retain, ranked in standings.items():
        for standing in ranked if retain in sizes else ():
            method, summary = standing.entry.method, standing.summary
            # With preserved gates a model cannot be pruned physically, so it saves nothing.
            if standing.rank is None or standing.entry.cells[0].router != "sliced":
                continue
            if summary is None or not math.isfinite(summary.mean):
                continue
            size = words.size(sizes[retain], "B")
            place = {"bytes": sizes[retain], "value": summary.mean, "method": method}
            text = f"{method}, {words.percent(retain)} kept, {size}: {summary.mean:.3f}"
            if method == RANDOM:
                band.append({**place, "low": summary.minimum, "high": summary.maximum})
            else:
                rows.append({**place, "note": note(method, text), "text": text})
    if len({row["bytes"] for row in (*rows, *band)}) < 2:
        return None
    full = score.value(group.unpruned) if group.unpruned and 1.0 in sizes else None
    unpruned = []
    if full is not None and math.isfinite(full):
        text = f"unpruned, {words.size(sizes[1.0], 'B')}: {full:.3f}"
        unpruned.append({"bytes": sizes[1.0], "value": full, "note": note("", text), "text": text})
    drawn = {row["method"] for row in rows}
    styles = {m: look for m, look in charts.looks(group.methods).items() if m in drawn}
    means = [f"{RANDOM}, {words.size(row['bytes'], 'B')}: {row['value']:.3f}" for row in band]
    direction = "higher" if score.higher else "lower"
    return charts.Chart(
        caption=f"{score.name} against memory, {direction} is better",
        drawing=draw(
            _specification(styles, rows, band, unpruned, what),
            id,
            f"{score.name} against memory, {group.model}",
            ". ".join([*(row["text"] for row in (*unpruned, *rows)), *means]) + ".",
        ),
        looks=styles,
        band=BAND if band else "",
    )


def _sizes(results: Results, group: Group) -> tuple[dict[float, int], str]:
    """Bytes by retain ratio, 1 for the unpruned model, and what they are of."""
    measured: dict[str, dict[float, int]] = {}
    for saving in results.efficiency:
        if saving.model == group.model and saving.pruned and saving.unpruned:
            own = measured.setdefault(saving.device, {1.0: saving.unpruned.peak_bytes})
            own[saving.retain] = saving.pruned.peak_bytes
    for device, sizes in measured.items():
        if all(setting.retain in sizes for setting in group.settings):
            return sizes, f"peak memory while generating on {device}"
    return weight_bytes(group, results.provenance), "memory of the weights"


def _specification(
    styles: Mapping[str, charts.Look],
    rows: Sequence[dict[str, Any]],
    band: Sequence[dict[str, Any]],
    unpruned: Sequence[dict[str, Any]],
    what: str,
) -> charts.Spec:
    ends = [row[end] for row in band for end in ("low", "high")]
    y = charts.figures([*ends, *(row["value"] for row in (*rows, *unpruned))])
    x = charts.figures([row["bytes"] for row in (*rows, *band, *unpruned)], ticks=5)
    x |= {"field": "bytes", "title": words.shorten(words.visible(what), 60)}
    x["axis"] |= {"labelExpr": UNITS}
    colour, shape = (charts.by_method(styles, part) for part in ("colour", "shape"))
    value = {**y, "field": "value"}
    full = charts.layer("full", "point", unpruned, x=x, y=value)
    full["mark"] |= {"shape": charts.SHAPES[2]}
    name = charts.layer("name", "text", unpruned, x=x, y=value, text={"value": "unpruned"})
    name["mark"] |= {"dx": -8}
    return charts.specification(
        [
            charts.layer("band", "area", band, x=x, y={**y, "field": "low"}, y2={"field": "high"}),
            charts.layer("mean", "line", band, x=x, y=value),
            charts.lines(rows, x=x, y=value, color=colour),
            charts.layer("point", "point", rows, x=x, y=value, color=colour, shape=shape),
            full,
            name,
        ],
        width=charts.WIDTH - 16,  # a size at the very end is a wide label
        padding={**charts.MARGINS, "right": charts.MARGINS["right"] + 16},
    )
