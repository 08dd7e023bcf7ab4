"""A score against the bytes of checkpoints: stored forms and methods of one model in one chart."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from mbench.core.cell_results import UNPRUNED
from mbench.core.clean_text import visible
from mbench.report import words
from mbench.report.charts import style
from mbench.report.charts.drawing import draw, note
from mbench.report.charts.score_by_memory import UNITS
from mbench.report.charts.style import Chart, Look, Spec
from mbench.report.statistics.equal_bytes import EqualBytes, Sized

CHARACTER, LINE = 7.0, 14
"""Of a name, in SVG user units: the width of a character and the height of the text, on a phone,
where names are larger beside the marks."""

LONGEST = 26
"""Characters of a name in the chart; the table has all of it."""

PLACES = (
    *(("left", 8, 0), ("right", -8, 0), ("left", 4, -12), ("right", -4, -12)),
    *(("left", 4, 13), ("right", -4, 13)),
)
"""Where a name may stand beside its mark: alignment, shift to the right, shift downwards."""

Box = tuple[float, float, float, float]


def score_by_bytes(board: EqualBytes) -> Chart:
    """A mark for each checkpoint; unpruned ones and those of the frontier have names."""
    drawn = [row for row in board.rows if row.score is not None and math.isfinite(row.score)]
    looks = style.looks(board.kinds)
    rows = [_mark(row, board) for row in drawn]
    steps = [{"bytes": row.bytes, "value": row.score} for row in board.frontier]
    if steps:
        # To the right edge: with more room the best one stays the best.
        steps.append({"bytes": max(row.bytes for row in drawn), "value": steps[-1]["value"]})
    direction = "higher" if board.score.higher else "lower"
    names = words.listing(board.models)
    return Chart(
        caption=f"{board.score.name} against bytes of the checkpoint, {direction} is better",
        drawing=draw(
            _specification(looks, rows, steps, board),
            f"{board.id}-chart",
            f"{board.score.name} against bytes, {names}",
            ". ".join(row["text"] for row in rows) + ".",
        ),
        looks=looks,
        key="line: the best observed score with at most so many bytes; larger marks: unpruned",
    )


def _mark(row: Sized, board: EqualBytes) -> dict[str, Any]:
    text = f"{row.name}, {words.size(row.bytes, 'B')}: {words.score_text(row.score or 0.0)}"
    return {
        "bytes": row.bytes,
        "value": row.score,
        "method": board.kind_name(row),
        "size": 110 if row.method == UNPRUNED else 50,
        "note": note(row.method if row.method != UNPRUNED else "", text),
        "text": text,
    }


def _specification(
    looks: Mapping[str, Look],
    rows: Sequence[dict[str, Any]],
    steps: Sequence[dict[str, Any]],
    board: EqualBytes,
) -> Spec:
    y = style.figures([row["value"] for row in rows])
    x = style.figures([row["bytes"] for row in rows], ticks=5)
    x |= {"field": "bytes", "title": "bytes of the checkpoint, as stored"}
    x["axis"] |= {"labelExpr": UNITS}
    value = {**y, "field": "value"}
    colour, shape = (style.by_method(looks, part) for part in ("colour", "shape"))
    frontier = style.layer("frontier", "line", steps, x=x, y=value)
    frontier["mark"] |= {"interpolate": "step-after"}
    size = {"field": "size", "type": "quantitative", "scale": None, "legend": None}
    points = style.layer("point", "point", rows, x=x, y=value, color=colour, shape=shape, size=size)
    width = style.WIDTH - 16
    named = [row for row in board.rows if row.method == UNPRUNED or row in board.frontier]
    return style.specification(
        [frontier, points, *_names(named, rows, x, value, width)],
        width=width,
        padding={**style.MARGINS, "right": style.MARGINS["right"] + 16},
    )


def _names(
    named: Sequence[Sized], rows: Sequence[dict[str, Any]], x: Spec, y: Spec, width: float
) -> list[Spec]:
    """A layer for each name that has room; marks and other names are not covered."""

    def at(row: Mapping[str, Any]) -> tuple[float, float]:
        (left, right), (low, high) = x["scale"]["domain"], y["scale"]["domain"]
        across = width * (row["bytes"] - left) / (right - left)
        return across, style.HEIGHT * (high - row["value"]) / (high - low)

    taken = [(a - 5, b - 5, a + 5, b + 5) for a, b in map(at, rows)]
    layers: list[dict[str, Any]] = []
    for row in named:
        if row.score is None or not math.isfinite(row.score):
            continue
        place = {"bytes": row.bytes, "value": row.score}
        # Colours tell the models of pruned ones.
        at_budget = f"{row.method}, {words.pruned(row.entry.key.retain)}"
        name = row.name if row.method == UNPRUNED else at_budget
        text = words.shorten(visible(name), LONGEST)
        across, down = at(place)
        for align, dx, dy in PLACES:
            box = _box(text, align, across + dx, down + dy)
            inside = (
                box[0] >= 0 and box[2] <= width + 12 and box[1] >= -12 and box[3] <= style.HEIGHT
            )
            if inside and not any(_overlap(box, other) for other in taken):
                taken.append(box)
                layer = style.layer("name", "text", [place], x=x, y=y, text={"value": text})
                layer["mark"] |= {"align": align, "dx": dx, "dy": dy}
                layer["name"] = f"name-{len(layers)}"  # Vega's names are of one layer each
                layers.append(layer)
                break
    return layers


def _box(text: str, align: str, across: float, down: float) -> Box:
    length = CHARACTER * len(text)
    left = across if align == "left" else across - length
    return left, down - LINE / 2, left + length, down + LINE / 2


def _overlap(one: Box, two: Box) -> bool:
    return one[0] < two[2] and two[0] < one[2] and one[1] < two[3] and two[1] < one[3]
