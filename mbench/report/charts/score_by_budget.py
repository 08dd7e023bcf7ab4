"""A score against the experts kept."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from mbench.report.charts import style
from mbench.report.charts.drawing import draw, note
from mbench.report.charts.style import Chart, Look, Spec
from mbench.report.statistics.boards import GroupBoards
from mbench.report.statistics.groups import RANDOM, Entry, Group
from mbench.report.statistics.scores import Score
from mbench.report.statistics.seed_summaries import Summary
from mbench.report.words import percent


def score_by_budget(boards: GroupBoards) -> Chart | None:
    """The score that the suite ranks by; None where nothing was pruned or nothing is ranked."""
    return _chart(boards, boards.score, "score") if boards.score and boards.boards else None


def perplexity_by_budget(boards: GroupBoards) -> Chart | None:
    """Mean log perplexity, where a suite that has it ranks by something else."""
    if boards.second_score is None or not boards.boards:
        return None
    return _chart(boards, boards.second_score, "perplexity")


def _chart(boards: GroupBoards, score: Score, name: str) -> Chart:
    """Every method at every budget with 95 % intervals over the items, random as a band."""
    group = boards.group
    rows: list[dict[str, Any]] = []
    random: dict[float, Summary] = {}
    for retain, ranked in boards.ranked_by(score).items():
        for standing in ranked:
            method, summary = standing.entry.method, standing.summary
            if not math.isfinite(summary.mean):
                continue
            if method == RANDOM:
                random[retain] = summary
                continue
            value, low, high = _extent(score, standing.entry, summary)
            text = f"{method}, {percent(retain)} kept: {value:.3f} ({low:.3f} to {high:.3f})"
            place = {"retain": retain, "method": method, "note": note(method, text)}
            rows.append({**place, "value": value, "low": low, "high": high})
    full = score.value(group.unpruned) if group.unpruned else None
    full = full if full is not None and math.isfinite(full) else None  # cannot be drawn
    counts = sorted({summary.count for summary in random.values()})
    seeds = " or ".join(str(count) for count in counts)
    band = f"{RANDOM}, {seeds} seeds: minimum to maximum, and mean" if random else ""
    title = f"{score.name} against experts kept, {group.model}, router {group.router}"
    direction = "higher" if score.higher else "lower"
    looks = style.looks(group.methods)
    return Chart(
        caption=f"{score.name}, {direction} is better (router {group.router})",
        drawing=draw(
            _specification(group, looks, rows, random, band, full),
            f"{boards.id}-{name}",
            title,
            _describe(group, score, rows, random, full),
        ),
        looks=looks,
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
    looks: Mapping[str, Look],
    rows: Sequence[dict[str, Any]],
    random: Mapping[float, Summary],
    band: str,
    full: float | None,
) -> Spec:
    heights = [row[end] for row in rows for end in ("low", "value", "high")]
    heights += [end for s in random.values() for end in (s.minimum, s.maximum)]
    y = style.figures(heights if full is None else [*heights, full])
    x = style.budgets([budget.retain for budget in group.budgets])
    ranges = [
        {"retain": retain, "low": s.minimum, "high": s.maximum, "mean": s.mean}
        | {"note": note("", f"{band} ({s.minimum:.3f} to {s.maximum:.3f}, {s.mean:.3f})")}
        for retain, s in random.items()
    ]
    place = {"x": x, "xOffset": style.abreast(looks), "color": style.by_method(looks, "colour")}
    value = {**y, "field": "value"}
    low, high = {**y, "field": "low"}, {"field": "high"}
    shape = style.by_method(looks, "shape")
    level = () if full is None else style.level(full, f"unpruned {full:.3f}", y)
    layers = [
        style.layer("band", "rect", ranges, **style.across(x), y=low, y2=high),
        style.layer("mean", "rule", ranges, **style.across(x), y={**y, "field": "mean"}),
        *level[:1],
        style.lines(rows, **place, y=value),
        style.layer("whisker", "rule", rows, **place, y=low, y2=high),
        style.layer("point", "point", rows, **place, y=value, shape=shape),
        *level[1:],
    ]
    return style.specification(layers)


def _describe(
    group: Group,
    score: Score,
    rows: Sequence[dict[str, Any]],
    random: Mapping[float, Summary],
    full: float | None,
) -> str:
    parts = []
    for budget in group.budgets:
        values = {row["method"]: row["value"] for row in rows if row["retain"] == budget.retain}
        text = f"{percent(budget.retain)} kept:"
        if values:
            best = (max if score.higher else min)(values, key=values.__getitem__)
            text += f" best {best} {values[best]:.3f};"
        if budget.retain in random:
            s = random[budget.retain]
            text += f" random mean {s.mean:.3f}, {s.minimum:.3f} to {s.maximum:.3f};"
        parts.append(text)
    if full is not None:
        parts.append(f"unpruned {full:.3f}.")
    return " ".join(parts)
