"""How far a single seed can mislead: every seed beside the methods that have none."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mbench.report.charts import style as charts
from mbench.report.charts.drawing import draw, note
from mbench.report.statistics.groups import RANDOM, Group, Score
from mbench.report.statistics.ranking import Standing
from mbench.report.words import percent

OTHER = "other"
"""The column of the best method that has no seeds."""

BAND = "mean ± standard deviation over the seeds"
KEY = "left of the seeds: the best method without seeds"


def seed_chart(
    group: Group, score: Score, standings: Mapping[float, Sequence[Standing]], id: str
) -> charts.Chart | None:
    """Every seed of each seeded method, and the best of the other methods, at every budget."""
    points: list[dict[str, Any]] = []
    bands: list[dict[str, Any]] = []
    seeds: dict[str, int] = {}
    for retain, ranked in standings.items():
        complete = [standing for standing in ranked if standing.rank is not None]
        single = [standing for standing in complete if not _several(standing)]
        for standing in [*single[:1], *filter(_several, complete)]:
            several = _several(standing)
            name = standing.entry.method if several else OTHER
            place = {"retain": retain, "method": standing.entry.method}
            if several:
                seeds[name] = max(seeds.get(name, 0), len(standing.entry.cells))
            for index, cell in enumerate(standing.entry.cells):
                seed = "" if cell.seed is None else f", seed {cell.seed}"
                value = score.value(cell)
                if value is None or not math.isfinite(value):
                    continue
                text = f"{cell.method}{seed}, {percent(retain)} kept: {value:.3f}"
                slot = f"{name} {index}"
                points.append(
                    {**place, "slot": slot, "value": value, "note": note(cell.method, text)}
                )
            summary = standing.summary
            if several and summary is not None and math.isfinite(summary.std):
                ends = {"low": summary.mean - summary.std, "high": summary.mean + summary.std}
                bands += [
                    {**place, **ends, "slot": f"{name} {end}", "mean": summary.mean}
                    for end in ("begin", "end")
                ]
    if not seeds or not points:
        return None
    drawn = {row["method"] for row in points}
    every = charts.looks(group.methods) | {RANDOM: charts.Look(charts.BAND, charts.SHAPES[0])}
    styles = {method: look for method, look in every.items() if method in drawn}
    return charts.Chart(
        caption=f"Every seed: {score.name}, {'higher' if score.higher else 'lower'} is better",
        drawing=draw(
            _specification(group, styles, points, bands, seeds),
            id,
            f"{score.name} of every seed, {group.model}, router {group.router}",
            " ".join(alone(score, standings)),
        ),
        looks=styles,
        band=BAND,
        key=KEY,
    )


def _specification(
    group: Group,
    styles: Mapping[str, charts.Look],
    points: Sequence[dict[str, Any]],
    bands: Sequence[dict[str, Any]],
    seeds: Mapping[str, int],
) -> charts.Spec:
    slots = [f"{OTHER} 0"]
    for name in sorted(seeds):
        slots += [f"{name} {slot}" for slot in ("begin", *range(seeds[name]), "end")]
    heights = [row["value"] for row in points]
    y = charts.figures([*heights, *(row[end] for row in bands for end in ("low", "high"))])
    x = charts.budgets([setting.retain for setting in group.settings])
    place = {"x": x, "xOffset": {"field": "slot", "scale": {"domain": slots}}}
    area = place | {"detail": [{"field": "retain"}, {"field": "method"}]}
    colour, shape = (charts.by_method(styles, part) for part in ("colour", "shape"))
    low, mean, value = ({**y, "field": part} for part in ("low", "mean", "value"))
    return charts.specification(
        [
            charts.layer("band", "area", bands, **area, y=low, y2={"field": "high"}),
            charts.layer("mean", "line", bands, **area, y=mean),
            charts.layer("point", "point", points, **place, y=value, color=colour, shape=shape),
        ]
    )


def _several(standing: Standing) -> bool:
    return len(standing.entry.cells) > 1


def alone(score: Score, standings: dict[float, Sequence[Standing]]) -> Iterator[str]:
    """A sentence per budget: where each seed would stand if it were the only one."""
    for retain, ranked in standings.items():
        complete = [standing for standing in ranked if standing.rank is not None]
        for standing in filter(_several, complete):
            others = [s.summary.mean for s in complete if s is not standing]
            if not others:
                continue
            sign = 1 if score.higher else -1
            places: dict[int, list[str]] = {}
            for cell in standing.entry.cells:
                value = sign * score.value(cell)
                place = 1 + sum(sign * other > value for other in others)
                places.setdefault(place, []).append(str(cell.seed))
            texts = [
                f"{place} (seed{'s' if len(seeds) > 1 else ''} {', '.join(seeds)})"
                for place, seeds in sorted(places.items())
            ]
            yield (
                f"{percent(retain)} kept: with one seed, {standing.entry.method} would stand, by"
                f" its figure alone, at place {' or '.join(texts)} of {len(others) + 1}."
            )
