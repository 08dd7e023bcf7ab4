"""What all charts share: looks of methods, scales, layers and their styles (Vega-Lite)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mbench.report.charts.drawing import Drawing, note
from mbench.report.statistics.groups import RANDOM

Spec = dict[str, Any]

SHAPES = (
    "M-.8 0a.8 .8 0 1 0 1.6 0a.8 .8 0 1 0-1.6 0Z",
    "M-.7-.7H.7V.7H-.7Z",
    "M0-1L1 0L0 1L-1 0Z",
    "M0-1L.95 .7H-.95Z",
    "M0 1L.95-.7H-.95Z",
    "M-.3-1H.3V-.3H1V.3H.3V1H-.3V.3H-1V-.3H-.3Z",
    "M-.9-.5L-.5-.9L0-.4L.5-.9L.9-.5L.4 0L.9 .5L.5 .9L0 .4L-.5 .9L-.9 .5L-.4 0Z",
)
"""Circle, square, diamond, two triangles, plus and cross, from -1 to 1; seven shapes against
twelve colours, so that no two of 84 methods share both."""

COLOURS = 12
"""Variables --c0 .. --c11 of the style sheet."""

WIDTH, HEIGHT = 404, 246
"""Of the plot area, in SVG user units."""

MARGINS = {"left": 48, "top": 12, "right": 8, "bottom": 42}

QUIET, LINE, BAND, TEXT = "var(--quiet)", "var(--line)", "var(--band)", "var(--text)"

CONFIG: Spec = {
    "font": "system-ui, sans-serif",
    "view": {"stroke": None},
    "axis": {
        "domain": False,
        "ticks": False,
        "gridColor": LINE,
        "gridWidth": 0.7,
        "labelColor": QUIET,
        "labelFontSize": 11,
        "labelFlush": False,
        "labelOverlap": False,
        "labelPadding": 6,
        "tickRound": False,
        "titleColor": QUIET,
        "titleFontSize": 11,
        "titleFontWeight": "normal",
        "translate": 0,
    },
    "axisY": {"grid": True},
    "axisX": {"grid": False, "labelAngle": 0, "titleY": 31, "titleBaseline": "alphabetic"},
    "style": {
        "band": {"color": BAND, "fillOpacity": 0.2},
        "mean": {"color": BAND, "strokeWidth": 1, "strokeDash": [2, 2]},
        "level": {"color": TEXT, "strokeDash": [6, 3]},
        "label": {"color": QUIET, "fontSize": 11, "align": "left", "dx": 4, "dy": -6},
        "line": {"strokeWidth": 1, "strokeOpacity": 0.35},
        "frontier": {"color": QUIET, "strokeWidth": 1.4, "strokeDash": [4, 2]},
        "whisker": {"strokeWidth": 1.4},
        "point": {"filled": True, "size": 64, "opacity": 1},
        "full": {"filled": True, "size": 50, "opacity": 1, "color": TEXT},
        "name": {"color": TEXT, "fontSize": 11, "align": "right", "baseline": "middle"},
    },
}
"""Marks are styled by the name of their layer. Colours are variables of the style sheet, so that
one chart serves the light and the dark page."""


@dataclass(frozen=True)
class Look:
    """How a method is drawn in every chart of a model."""

    colour: str
    shape: str
    """SVG path within -1 and 1."""


@dataclass(frozen=True)
class Chart:
    """A chart and its legend."""

    caption: str
    drawing: Drawing
    looks: Mapping[str, Look] = field(default_factory=dict)
    band: str = ""
    """What the grey band is; empty if there is none."""
    key: str = ""
    """Another line of the legend, e.g. what the whiskers are."""


def looks(methods: Sequence[str], reserved: str = RANDOM) -> dict[str, Look]:
    """A colour and a shape for every method but the reserved one, which is drawn as a band."""
    names = [method for method in methods if method != reserved]
    return {
        name: Look(f"var(--c{index % COLOURS})", SHAPES[index % len(SHAPES)])
        for index, name in enumerate(names)
    }


def specification(layers: Sequence[Spec], **properties: Any) -> Spec:
    """Layers on top of each other, of fixed size: the width of text differs by machine."""
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "width": WIDTH,
        "height": HEIGHT,
        "padding": MARGINS,
        "autosize": "none",
        "background": None,
        "config": CONFIG,
        "layer": list(layers),
        **properties,
    }


def layer(name: str, mark: str, rows: Sequence[Mapping[str, Any]], **encoding: Any) -> Spec:
    """Marks of one kind, one per row; the `note` of a row is its description."""
    if rows and "note" in rows[0]:
        encoding["description"] = {"field": "note"}
    return {
        "name": name,
        "data": {"values": list(rows)},
        "mark": {"type": mark, "style": name},
        "encoding": encoding,
    }


def lines(rows: Sequence[Mapping[str, Any]], **encoding: Any) -> Spec:
    """A thin line through the marks of each method with several marks."""
    methods = Counter(row["method"] for row in rows)
    several = [{**row, "note": note(row["method"])} for row in rows if methods[row["method"]] > 1]
    return layer("line", "line", several, **encoding)


def budgets(retains: Sequence[float]) -> Spec:
    """The x channel of charts whose columns are budgets."""
    return {
        "field": "retain",
        "type": "ordinal",
        "title": "experts pruned",
        "scale": {"domain": list(retains), "paddingInner": 0.25, "paddingOuter": 0.12},
        "axis": {"labelExpr": "format(100 * (1 - datum.value), '.4~g') + '\N{NO-BREAK SPACE}%'"},
    }


def across(x: Spec) -> Spec:
    """The x and x2 channels of a mark as wide as the column of a budget."""
    return {"x": {**x, "bandPosition": 0}, "x2": {"field": x["field"], "bandPosition": 1}}


def figures(values: Iterable[float], ticks: int = 6) -> Spec:
    """A quantitative channel whose scale covers all finite values with a margin."""
    drawn = [value for value in values if math.isfinite(value)]
    lowest, highest = min(drawn, default=0.0), max(drawn, default=1.0)
    margin = 0.04 * (highest - lowest) or 0.1
    return {
        "type": "quantitative",
        "title": None,
        "scale": {"domain": [lowest - margin, highest + margin], "nice": False, "zero": False},
        "axis": {"tickCount": ticks},
    }


def by_method(styles: Mapping[str, Look], part: str) -> Spec:
    """A channel for the `colour` or the `shape` of methods."""
    drawn = [getattr(look, part) for look in styles.values()]
    scale = {"domain": list(styles), "range": drawn}
    return {"field": "method", "type": "nominal", "scale": scale, "legend": None}


def abreast(slots: Iterable[str]) -> Spec:
    """The xOffset channel: a place for each slot within the column of a budget."""
    return {"field": "method", "type": "nominal", "scale": {"domain": list(slots)}}


def level(value: float, text: str, y: Spec) -> tuple[Spec, Spec]:
    """A dashed line across the chart, and the text above it."""
    at = {key: part for key, part in y.items() if key != "field"} | {"datum": value}
    return (
        layer("level", "rule", [{}], y=at),
        layer("label", "text", [{}], x={"value": 0}, y=at, text={"value": text}),
    )
