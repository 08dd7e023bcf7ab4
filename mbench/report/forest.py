"""One budget at a glance: how far every method is from the mean of random pruning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mbench.report import charts
from mbench.report.arrange import RANDOM, Group, Score, Setting
from mbench.report.ranking import Standing
from mbench.report.words import interval, percent, shorten, signed

LEFT, ROW = 150, 18
"""Where the axis begins, after the names, and the height of a row, in SVG user units."""

MOST_TICKS = 5
"""More labels than these would touch on a telephone."""


@dataclass(frozen=True)
class ForestRow:
    """One method: its difference with a 95 % interval."""

    method: str
    label: str
    look: charts.Look
    y: float
    x: float
    low: float
    high: float
    separated: bool
    title: str


@dataclass(frozen=True)
class Forest:
    """Everything the template draws."""

    id: str
    caption: str
    title: str
    description: str
    height: int
    bottom: float
    rows: tuple[ForestRow, ...]
    ticks: tuple[tuple[float, str], ...]
    zero: float
    band: tuple[float, float] | None
    """Left and right of the random seeds' range."""


def forest(
    group: Group, setting: Setting, score: Score, ranked: Sequence[Standing], id: str
) -> Forest | None:
    """Differences in the leaderboard's order; None without random pruning to compare with."""
    random = [s for s in ranked if s.entry.method == RANDOM and s.rank is not None]
    found = [s for s in ranked if s.from_random is not None]
    if not random or not found:
        return None
    seeds = random[0].summary
    ends = [seeds.minimum - seeds.mean, seeds.maximum - seeds.mean, 0.0]
    ends += [end for s in found for end in (s.from_random.low, s.from_random.high)]
    lowest, highest = min(ends), max(ends)
    margin = 0.04 * (highest - lowest) or 0.1
    lowest, highest = lowest - margin, highest + margin

    def to_x(value: float) -> float:
        return round(LEFT + (value - lowest) / (highest - lowest) * (charts.RIGHT - LEFT), 1)

    looks = charts.looks(group.methods)
    rows = []
    for index, standing in enumerate(found):
        gap, method = standing.from_random, standing.entry.method
        bounds = interval(gap.low, gap.high)
        word = "separated" if standing.differs_from_random else "not separated"
        rows.append(
            ForestRow(
                method=method,
                label=shorten(method, 22),
                look=looks[method],
                y=charts.TOP + (index + 0.5) * ROW,
                x=to_x(gap.value),
                low=to_x(gap.low),
                high=to_x(gap.high),
                separated=standing.differs_from_random,
                title=f"{method}: {signed(gap.value)} {bounds}, {word} from the random mean",
            )
        )
    bottom = charts.TOP + len(rows) * ROW
    values = charts.ticks(lowest, highest)
    while len(values) > MOST_TICKS:  # every other one, and zero among them
        values = values[values.index(0.0) % 2 :: 2]
    kept = percent(setting.retain)
    return Forest(
        id=id,
        caption=f"{kept} kept: {score.name} against the random mean",
        title=f"{score.name} against the mean of random pruning, {group.model}, {kept} kept",
        description=". ".join(row.title for row in rows) + ".",
        height=bottom + 26,
        bottom=bottom,
        rows=tuple(rows),
        ticks=tuple((to_x(value), signed(value) if value else "0") for value in values),
        zero=to_x(0.0),
        band=(to_x(ends[0]), to_x(ends[1])) if seeds.count > 1 else None,
    )
