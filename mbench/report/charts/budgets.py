"""A score against the experts kept."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from mbench.report.charts import style as charts
from mbench.report.charts.drawing import draw, note
from mbench.report.charts.style import Chart
from mbench.report.statistics.groups import RANDOM, Entry, Group, Score
from mbench.report.statistics.ranking import Standing
from mbench.report.statistics.seed_summaries import Summary
from mbench.report.words import percent


def budget_chart(
    group: Group, score: Score, standings: Mapping[float, Sequence[Standing]], id: str
) -> Chart:
    """Draw every method at every budget with 95 % intervals over the items, random as a band."""
    rows: list[dict[str, Any]] = []
    random: dict[float, Summary] = {}
    for retain, ranked in standings.items():
        for standing in ranked:
            method, summary = standing.entry.method, standing.summary
            if standing.rank is None or summary is None or not math.isfinite(summary.mean):
                continue
            if method == RANDOM:
                random[retain] = summary
                continue
            value, low, high = _extent(score, standing.entry, summary)
            text = f"{method}, {percent(retain)} kept: {value:.3f} ({low:.3f} to {high:.3f})"
            place = {"retain": retain, "method": method, "note": note(method, text)}
            rows.append({**place, "value": value, "low": low, "high": high})
    full = score.value(group.unpruned) if group.unpruned else None
    full = full if full is not None and math.isfinite(full) else None  # has no height
    counts = sorted({summary.count for summary in random.values()})
    seeds = " or ".join(str(count) for count in counts)
    band = f"{RANDOM}, {seeds} seeds: minimum to maximum, and mean" if random else ""
    title = f"{score.name} against experts kept, {group.model}, router {group.router}"
    direction = "higher" if score.higher else "lower"
    styles = charts.looks(group.methods)
    return Chart(
        caption=f"{score.name}, {direction} is better (router {group.router})",
        drawing=draw(
            _specification(group, styles, rows, random, band, full),
            id,
            title,
            _describe(group, score, rows, random, full),
        ),
        looks=styles,
        band=band,
        key="whisker: ± 1.96 standard errors over items, or the range over seeds",
    )


def _extent(score: Score, entry: Entry, summary: Summary) -> tuple[float, float, float]:
    """Value and bounds: over items for a single cell, minimum and maximum over several seeds."""
    if summary.count > 1:
        return summary.mean, summary.minimum, summary.maximum
    error = 1.96 * score.stderr(entry.cells[0])
    error = error if math.isfinite(error) else 0.0
    return summary.mean, summary.mean - error, summary.mean + error


def _specification(
    group: Group,
    styles: Mapping[str, charts.Look],
    rows: Sequence[dict[str, Any]],
    random: Mapping[float, Summary],
    band: str,
    full: float | None,
) -> charts.Spec:
    heights = [row[end] for row in rows for end in ("low", "value", "high")]
    heights += [end for s in random.values() for end in (s.minimum, s.maximum)]
    y = charts.figures(heights if full is None else [*heights, full])
    x = charts.budgets([setting.retain for setting in group.settings])
    ranges = [
        {"retain": retain, "low": s.minimum, "high": s.maximum, "mean": s.mean}
        | {"note": note("", f"{band} ({s.minimum:.3f} to {s.maximum:.3f}, {s.mean:.3f})")}
        for retain, s in random.items()
    ]
    own = {"x": x, "xOffset": charts.abreast(styles), "color": charts.by_method(styles, "colour")}
    value = {**y, "field": "value"}
    low, high = {**y, "field": "low"}, {"field": "high"}
    shape = charts.by_method(styles, "shape")
    level = () if full is None else charts.level(full, f"unpruned {full:.3f}", y)
    layers = [
        charts.layer("band", "rect", ranges, **charts.across(x), y=low, y2=high),
        charts.layer("mean", "rule", ranges, **charts.across(x), y={**y, "field": "mean"}),
        *level[:1],
        charts.lines(rows, **own, y=value),
        charts.layer("whisker", "rule", rows, **own, y=low, y2=high),
        charts.layer("point", "point", rows, **own, y=value, shape=shape),
        *level[1:],
    ]
    return charts.specification(layers)


def _describe(
    group: Group,
    score: Score,
    rows: Sequence[dict[str, Any]],
    random: Mapping[float, Summary],
    full: float | None,
) -> str:
    parts = []
    for setting in group.settings:
        found = {row["method"]: row["value"] for row in rows if row["retain"] == setting.retain}
        text = f"{percent(setting.retain)} kept:"
        if found:
            best = (max if score.higher else min)(found, key=found.__getitem__)
            text += f" best {best} {found[best]:.3f};"
        if setting.retain in random:
            s = random[setting.retain]
            text += f" random mean {s.mean:.3f}, {s.minimum:.3f} to {s.maximum:.3f};"
        parts.append(text)
    if full is not None:
        parts.append(f"unpruned {full:.3f}.")
    return " ".join(parts)
