"""How much a single seed can mislead: every seed beside the best method without seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from mbench.report.charts import style
from mbench.report.charts.drawing import draw, note
from mbench.report.charts.style import Chart, Look, Spec
from mbench.report.statistics.boards import GroupBoards
from mbench.report.statistics.groups import RANDOM, Group
from mbench.report.statistics.scores import Score
from mbench.report.statistics.single_seeds import has_seeds, places_of_single_seeds
from mbench.report.words import pruned

OTHER = "other"
"""The column of the best method that has no seeds."""

BAND = "mean ± standard deviation over the seeds"
KEY = "left of the seeds: the best method without seeds"


def single_seeds(boards: GroupBoards) -> Chart | None:
    """Every seed of each seeded method, and the best of the other methods, at every budget."""
    group, score = boards.group, boards.score
    if score is None:
        return None
    points, bands, seeds = _rows(boards, score)
    if not seeds or not points:
        return None
    drawn = {row["method"] for row in points}
    every = style.looks(group.methods) | {RANDOM: Look(style.BAND, style.SHAPES[0])}
    looks = {method: look for method, look in every.items() if method in drawn}
    return Chart(
        caption=f"Every seed: {score.name}, {'higher' if score.higher else 'lower'} is better",
        drawing=draw(
            _specification(group, looks, points, bands, seeds),
            f"{boards.id}-seeds",
            f"{score.name} of every seed, {group.model}, router {group.router}",
            " ".join(places_of_single_seeds(boards)),
        ),
        looks=looks,
        band=BAND,
        key=KEY,
    )


def _rows(
    boards: GroupBoards, score: Score
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], dict[str, int]]:
    """Points of the seeds, bands of their means, and how many seeds each method has."""
    points: list[dict[str, Any]] = []
    bands: list[dict[str, Any]] = []
    seeds: dict[str, int] = {}
    for retain, ranked in boards.placed_by(score).items():
        single = [standing for standing in ranked if not has_seeds(standing)]
        for standing in [*single[:1], *filter(has_seeds, ranked)]:
            entry, summary, several = standing.entry, standing.summary, has_seeds(standing)
            name = entry.method if several else OTHER
            place = {"retain": retain, "method": entry.method}
            if several:
                seeds[name] = max(seeds.get(name, 0), len(entry.cells))
            for index, cell in enumerate(entry.cells):
                seed = "" if cell.seed is None else f", seed {cell.seed}"
                value = score.value(cell)
                if value is None or not math.isfinite(value):
                    continue
                text = f"{cell.method}{seed}, {pruned(retain)}: {value:.3f}"
                slot = f"{name} {index}"
                points.append(
                    {**place, "slot": slot, "value": value, "note": note(cell.method, text)}
                )
            if several and math.isfinite(summary.std):
                ends = {"low": summary.mean - summary.std, "high": summary.mean + summary.std}
                bands += [
                    {**place, **ends, "slot": f"{name} {end}", "mean": summary.mean}
                    for end in ("begin", "end")
                ]
    return points, bands, seeds


def _specification(
    group: Group,
    looks: Mapping[str, Look],
    points: Sequence[dict[str, Any]],
    bands: Sequence[dict[str, Any]],
    seeds: Mapping[str, int],
) -> Spec:
    slots = [f"{OTHER} 0"]
    for name in sorted(seeds):
        slots += [f"{name} {slot}" for slot in ("begin", *range(seeds[name]), "end")]
    heights = [row["value"] for row in points]
    y = style.figures([*heights, *(row[end] for row in bands for end in ("low", "high"))])
    x = style.budgets([budget.retain for budget in group.budgets])
    place = {"x": x, "xOffset": {"field": "slot", "scale": {"domain": slots}}}
    area = place | {"detail": [{"field": "retain"}, {"field": "method"}]}
    colour, shape = (style.by_method(looks, part) for part in ("colour", "shape"))
    low, mean, value = ({**y, "field": part} for part in ("low", "mean", "value"))
    return style.specification(
        [
            style.layer("band", "area", bands, **area, y=low, y2={"field": "high"}),
            style.layer("mean", "line", bands, **area, y=mean),
            style.layer("point", "point", points, **place, y=value, color=colour, shape=shape),
        ]
    )
