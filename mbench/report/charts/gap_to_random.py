"""The difference of every method to the mean of random pruning, at one budget."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from mbench.core.clean_text import visible
from mbench.report.charts import style
from mbench.report.charts.drawing import draw, note
from mbench.report.charts.style import Chart, Spec
from mbench.report.statistics.boards import Board
from mbench.report.statistics.groups import RANDOM, Group
from mbench.report.statistics.ranking import Ranked
from mbench.report.words import interval, percent, shorten, signed

WIDTH, NAMES, ROW = 242, 166, 18
"""Width of the plot area, width of the names, and height of a row, in SVG user units."""

LONGEST = 20
"""Characters of a name that fit into that width on a phone, where texts are larger."""


def gap_to_random(board: Board) -> Chart | None:
    """A forest plot in the leaderboard's order; None without random pruning."""
    random = [standing.summary for standing in board.ranked if standing.entry.method == RANDOM]
    rows = [row for standing in board.ranked if (row := _row(standing))]
    if board.score is None or not random or not rows:
        return None
    seeds, kept, name = random[0], percent(board.retain), board.score.name
    return Chart(
        caption=f"{kept} kept: {name} minus the random mean",
        drawing=draw(
            _specification(
                board.group, rows, (seeds.minimum - seeds.mean, seeds.maximum - seeds.mean)
            ),
            f"{board.id}-gaps",
            f"{name} minus the mean of random pruning, {board.group.model}, {kept} kept",
            ". ".join(row["text"] for row in rows) + ".",
        ),
    )


def _row(standing: Ranked) -> dict[str, Any]:
    """The mark and whisker of a method; empty if it has none."""
    against, method = standing.against_random, standing.entry.method
    if against is None or not math.isfinite(against.difference.value):
        return {}
    gap = against.difference
    word = "significantly different" if against.significant else "not significantly different"
    bounds = interval(gap.low, gap.high)
    text = f"{method}: {signed(gap.value)} {bounds}, {word} from the random mean"
    return {
        "method": method,
        "label": shorten(visible(method), LONGEST),
        "value": gap.value,
        "significant": against.significant,
        "note": note(method, text),
        "text": text,
        **({"low": gap.low, "high": gap.high} if math.isfinite(gap.high - gap.low) else {}),
    }


def _specification(
    group: Group, rows: Sequence[dict[str, Any]], seeds: tuple[float, float]
) -> Spec:
    looks = style.looks(group.methods)
    ends = [row[end] for row in rows for end in ("low", "value", "high") if end in row]
    x = style.figures([*ends, *seeds, 0.0], ticks=3)
    x["axis"] |= {"grid": True, "format": "+f", "labelExpr": "datum.value ? datum.label : '0'"}
    order = {"domain": [row["method"] for row in rows], "padding": 0}
    y = {"field": "method", "type": "nominal", "scale": order, "axis": None}
    colour, zero = style.by_method(looks, "colour"), {**x, "datum": 0.0}
    whiskers = [row for row in rows if "low" in row]
    point = style.layer(
        "point",
        "point",
        rows,
        x={**x, "field": "value"},
        y=y,
        shape=style.by_method(looks, "shape"),
        stroke=colour,
        fill={"condition": {"test": "datum.significant", **colour}, "value": "var(--back)"},
    )
    point["mark"] |= {"strokeWidth": 1.4, "size": 50}
    name = style.layer("name", "text", rows, x={"value": -8}, y=y, text={"field": "label"})
    band = [{"low": seeds[0], "high": seeds[1], "note": note("", "the range of random's seeds")}]
    return style.specification(
        [
            style.layer("band", "rect", band, x={**x, "field": "low"}, x2={"field": "high"}),
            style.layer("level", "rule", [{}], x=zero),
            style.layer(
                "whisker",
                "rule",
                whiskers,
                x={**x, "field": "low"},
                x2={"field": "high"},
                y=y,
                color=colour,
            ),
            point,
            name,
        ],
        width=WIDTH,
        height=ROW * len(rows),
        padding={**style.MARGINS, "left": NAMES, "right": 18, "bottom": 24},
    )
