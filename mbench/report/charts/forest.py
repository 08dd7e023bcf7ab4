"""One budget at a glance: how far every method is from the mean of random pruning."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mbench.report.charts import style as charts
from mbench.report.charts.drawing import draw, note
from mbench.report.statistics.groups import RANDOM, Group, Score, Setting
from mbench.report.statistics.ranking import Standing
from mbench.report.words import interval, percent, shorten, signed, visible

WIDTH, NAMES, ROW = 242, 166, 18
"""Of the area between the axes, the room for names and the height of a row, in SVG user units."""

LONGEST = 20
"""Characters of a name that fit into that room on a telephone, where texts are larger."""


def forest(
    group: Group, setting: Setting, score: Score, ranked: Sequence[Standing], id: str
) -> charts.Chart | None:
    """Differences in the leaderboard's order; None without random pruning to compare with."""
    random = [s.summary for s in ranked if s.entry.method == RANDOM and s.rank is not None]
    seeds = random[0] if random else None
    rows = []
    for standing in ranked:
        gap, method = standing.from_random, standing.entry.method
        if gap is None or not math.isfinite(gap.value):
            continue
        word = "separated" if standing.differs_from_random else "not separated"
        bounds = interval(gap.low, gap.high)
        text = f"{method}: {signed(gap.value)} {bounds}, {word} from the random mean"
        rows.append(
            {"method": method, "label": shorten(visible(method), LONGEST), "value": gap.value}
            | {"separated": standing.differs_from_random, "note": note(method, text), "text": text}
            | ({"low": gap.low, "high": gap.high} if math.isfinite(gap.high - gap.low) else {})
        )
    if seeds is None or not rows:
        return None
    kept = percent(setting.retain)
    return charts.Chart(
        caption=f"{kept} kept: {score.name} against the random mean",
        drawing=draw(
            _specification(group, rows, (seeds.minimum - seeds.mean, seeds.maximum - seeds.mean)),
            id,
            f"{score.name} against the mean of random pruning, {group.model}, {kept} kept",
            ". ".join(row["text"] for row in rows) + ".",
        ),
    )


def _specification(group: Group, rows: list[dict], seeds: tuple[float, float]) -> charts.Spec:
    styles = charts.looks(group.methods)
    ends = [row[end] for row in rows for end in ("low", "value", "high") if end in row]
    x = charts.figures([*ends, *seeds, 0.0], ticks=3)
    x["axis"] |= {"grid": True, "format": "+f", "labelExpr": "datum.value ? datum.label : '0'"}
    order = {"domain": [row["method"] for row in rows], "padding": 0}
    y = {"field": "method", "type": "nominal", "scale": order, "axis": None}
    colour, zero = charts.by_method(styles, "colour"), {**x, "datum": 0.0}
    whiskers = [row for row in rows if "low" in row]
    point = charts.layer(
        "point",
        "point",
        rows,
        x={**x, "field": "value"},
        y=y,
        shape=charts.by_method(styles, "shape"),
        stroke=colour,
        fill={"condition": {"test": "datum.separated", **colour}, "value": "var(--back)"},
    )
    point["mark"] |= {"strokeWidth": 1.4, "size": 50}
    name = charts.layer("name", "text", rows, x={"value": -8}, y=y, text={"field": "label"})
    band = [{"low": seeds[0], "high": seeds[1], "note": note("", "the range of random's seeds")}]
    return charts.specification(
        [
            charts.layer("band", "rect", band, x={**x, "field": "low"}, x2={"field": "high"}),
            charts.layer("level", "rule", [{}], x=zero),
            charts.layer(
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
        padding={**charts.MARGINS, "left": NAMES, "right": 18, "bottom": 24},
    )
