"""The geometry of charts, and a score against the retain ratio. Lengths are SVG user units."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from mbench.report.arrange import RANDOM, Group, Score
from mbench.report.ranking import Standing
from mbench.report.words import percent

WIDTH, HEIGHT = 460, 300
LEFT, RIGHT, TOP, BOTTOM = 48, 452, 12, 258

SHAPES = (
    "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0Z",
    "M-3.6-3.6H3.6V3.6H-3.6Z",
    "M0-5L5 0L0 5L-5 0Z",
    "M0-5L4.8 3.6H-4.8Z",
    "M0 5L4.8-3.6H-4.8Z",
    "M-1.5-5H1.5V-1.5H5V1.5H1.5V5H-1.5V1.5H-5V-1.5H-1.5Z",
    "M-4.6-2.6L-2.6-4.6L0-2L2.6-4.6L4.6-2.6L2 0L4.6 2.6L2.6 4.6L0 2L-2.6 4.6L-4.6 2.6L-2 0Z",
)
"""Circle, square, diamond, two triangles, plus and cross; seven shapes against twelve colours,
so that no two of 84 methods share both."""

COLOURS = 12
"""Classes c0 .. c11 of the style sheet."""


@dataclass(frozen=True)
class Look:
    """How a method is drawn in every chart of a model."""

    colour: int
    shape: str


@dataclass(frozen=True)
class Mark:
    """One method at one budget."""

    x: float
    y: float
    low: float
    high: float
    title: str


@dataclass(frozen=True)
class Series:
    """One method across the budgets."""

    method: str
    look: Look
    marks: tuple[Mark, ...]
    line: str
    """Path through the marks."""


@dataclass(frozen=True)
class Band:
    """A range and the mean within it, at one budget."""

    left: float
    right: float
    top: float
    bottom: float
    mean: float


@dataclass(frozen=True)
class Chart:
    """Everything the template draws."""

    id: str
    caption: str
    title: str
    description: str
    x_label: str
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    series: tuple[Series, ...]
    key: str = ""
    """What the legend says of the marks."""
    bands: tuple[Band, ...] = ()
    band_title: str = ""
    level: float | None = None
    """Height of a dashed line across the chart."""
    level_title: str = ""


def looks(methods: Sequence[str], reserved: str = RANDOM) -> dict[str, Look]:
    """A colour and a shape for every method but the reserved one, which is drawn as a band."""
    names = [method for method in methods if method != reserved]
    return {
        name: Look(index % COLOURS, SHAPES[index % len(SHAPES)]) for index, name in enumerate(names)
    }


@dataclass(frozen=True)
class Scale:
    """From values to heights."""

    bottom: float
    top: float

    @classmethod
    def over(cls, values: Sequence[float]) -> Scale:
        """A scale that holds all finite values and a little more."""
        drawn = [value for value in values if math.isfinite(value)]
        lowest, highest = min(drawn, default=0.0), max(drawn, default=1.0)
        margin = 0.04 * (highest - lowest) or 0.1
        return cls(lowest - margin, highest + margin)

    def __call__(self, value: float) -> float:
        """The height at which a value is drawn."""
        share = (value - self.bottom) / (self.top - self.bottom)
        return round(BOTTOM - share * (BOTTOM - TOP), 1)

    def ticks(self) -> tuple[tuple[float, str], ...]:
        """Heights of round values, with their texts."""
        values = ticks(self.bottom, self.top)
        decimals = max(0, -math.floor(math.log10(values[1] - values[0]) + 1e-9))
        return tuple((self(value), f"{value:.{decimals}f}") for value in values)


def path(points: Sequence[tuple[float, float]]) -> str:
    """A line through points."""
    return "M" + "L".join(f"{x} {y}" for x, y in points) if points else ""


def chart(group: Group, score: Score, standings: dict[float, Sequence[Standing]], id: str) -> Chart:
    """Draw a score of every method at every budget with 95 % intervals over the items."""
    points, random = {}, {}
    for retain, ranked in standings.items():
        for standing in ranked:
            if standing.rank is None:
                continue
            if standing.entry.method == RANDOM:
                random[retain] = standing.summary
            else:
                points[standing.entry.method, retain] = _extent(score, standing)
    level = score.value(group.unpruned) if group.unpruned else None
    if level is not None and not math.isfinite(level):
        level = None  # an infinite loss has no height
    heights = [height for extent in points.values() for height in extent]
    heights += [height for s in random.values() for height in (s.minimum, s.maximum)]
    heights += [level] if level is not None else []
    to_y = Scale.over(heights)
    retains = [setting.retain for setting in group.settings]
    centres, width = columns(retains)
    styles = looks(group.methods)
    series = []
    for index, (method, look) in enumerate(styles.items()):
        marks = []
        for retain in retains:
            if (method, retain) not in points:
                continue
            value, low, high = points[method, retain]
            shift = (index + 0.5) / len(styles) - 0.5
            x = round(centres[retain] + shift * width, 1)
            title = f"{method}, {percent(retain)} kept: {value:.3f} ({low:.3f} to {high:.3f})"
            marks.append(Mark(x, to_y(value), to_y(low), to_y(high), title))
        line = path([(mark.x, mark.y) for mark in marks])
        series.append(Series(method, look, tuple(marks), line))
    counts = sorted({summary.count for summary in random.values()})
    seeds = " or ".join(str(count) for count in counts)
    direction = "higher" if score.higher else "lower"
    return Chart(
        id=id,
        caption=f"{score.name}, {direction} is better (router {group.router})",
        title=f"{score.name} against experts kept, {group.model}, router {group.router}",
        description=_describe(group, score, points, random, level),
        x_label="experts kept",
        x_ticks=tuple((centres[retain], percent(retain)) for retain in retains),
        y_ticks=to_y.ticks(),
        series=tuple(series),
        key="whisker: 95 % interval over items, or the range over seeds",
        bands=tuple(
            Band(
                round(centres[retain] - width * 0.56, 1),
                round(centres[retain] + width * 0.56, 1),
                to_y(max(s.minimum, s.maximum)),
                to_y(min(s.minimum, s.maximum)),
                to_y(s.mean),
            )
            for retain, s in random.items()
        ),
        band_title=f"{RANDOM}, {seeds} seeds: minimum to maximum, and mean" if random else "",
        level=None if level is None else to_y(level),
        level_title="" if level is None else f"unpruned {level:.3f}",
    )


def _extent(score: Score, standing: Standing) -> tuple[float, float, float]:
    """Value and bounds: over items for a single cell, minimum and maximum over several seeds."""
    summary = standing.summary
    if summary.count > 1:
        return summary.mean, summary.minimum, summary.maximum
    error = 1.96 * score.stderr(standing.entry.cells[0])
    error = error if math.isfinite(error) else 0.0
    return summary.mean, summary.mean - error, summary.mean + error


def columns(retains: Sequence[float]) -> tuple[dict[float, float], float]:
    """Centre of each budget, to scale, and the width within which its methods stand abreast."""
    gaps = [b - a for a, b in pairwise(retains)]
    narrowest = min(gaps, default=1.0)
    span = (retains[-1] - retains[0] if gaps else 0.0) + narrowest
    unit = (RIGHT - LEFT) / span
    start = retains[0] - narrowest / 2 if retains else 0.0
    return {r: round(LEFT + (r - start) * unit, 1) for r in retains}, 0.68 * narrowest * unit


def ticks(low: float, high: float) -> list[float]:
    """Round values between low and high, three to nine of them; low < high."""
    spread = high - low
    exponent = math.floor(math.log10(spread / 6))
    step = next(
        factor * 10.0**exponent for factor in (1, 2, 5, 10) if factor * 10.0**exponent >= spread / 6
    )
    first, last = math.ceil(low / step), math.floor(high / step)
    return [round(index * step, 12) for index in range(first, last + 1)]


def _describe(group: Group, score: Score, points: dict, random: dict, level: float | None) -> str:
    parts = []
    for setting in group.settings:
        found = {m: p[0] for (m, retain), p in points.items() if retain == setting.retain}
        text = f"{percent(setting.retain)} kept:"
        if found:
            best = (max if score.higher else min)(found, key=found.get)
            text += f" best {best} {found[best]:.3f};"
        if setting.retain in random:
            s = random[setting.retain]
            text += f" random mean {s.mean:.3f}, {s.minimum:.3f} to {s.maximum:.3f};"
        parts.append(text)
    if level is not None:
        parts.append(f"unpruned {level:.3f}.")
    return " ".join(parts)
