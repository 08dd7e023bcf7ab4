"""An axis of scores in percent of its width, as the drawings of the first screen use it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from mbench.report.statistics.inference import NOISE

FAR = 10.0
"""A few figures that are further from all others than so many times these are from each other, or
than a usual whisker is long, stand at the edge: one diverged model must not flatten a chart."""

TICKS = 7
"""At most."""


@dataclass(frozen=True)
class Axis:
    """From `low` to `high`."""

    low: float
    high: float
    step: float
    """Between two ticks: 1, 2 or 5 times a power of ten."""

    def at(self, value: float) -> float:
        """Per cent of the width; what is beyond stands at the edge."""
        share = (value - self.low) / (self.high - self.low)
        return round(100 * min(1.0, max(0.0, share)), 3)

    def beyond(self, value: float) -> bool:
        """Whether a figure stands at the edge because it lies outside."""
        return not self.low <= value <= self.high

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Per cent of the width, and the label."""
        decimals = max(0, -math.floor(math.log10(self.step) + 1e-9))
        first = math.ceil(self.low / self.step - 1e-9)
        last = math.floor(self.high / self.step + 1e-9)
        values = [number * self.step for number in range(first, last + 1)]
        # + 0.0 makes a negative zero positive.
        return [
            (self.at(value), f"{round(value, decimals) + 0.0:.{decimals}f}") for value in values
        ]


def axis(figures: Iterable[float], whiskers: Iterable[Sequence[float]] = ()) -> Axis | None:
    """An axis that holds the figures but for a few far ones, and of the ends of whiskers those that
    are not much further than figures and usual whiskers reach; None without a finite figure."""
    values = sorted(value for value in figures if math.isfinite(value))
    if not values:
        return None
    drawn = [own for own in whiskers if own and all(map(math.isfinite, own))]
    usual = median(own[-1] - own[0] for own in drawn) if drawn else 0.0
    low, high = _together(values, usual)
    if high - low < NOISE:  # equal but for rounding
        high = low
    spread = max(high - low, usual) or abs(high) / 10 or 0.1
    ends = (end for own in drawn for end in own)
    near = [end for end in ends if low - spread <= end <= high + spread]
    low, high = min([low, *near]), max([high, *near])
    around = abs(high) / 10 if abs(high) > NOISE else 0.1
    margin = 0.04 * (high - low if high - low > NOISE else around)
    low, high = low - margin, high + margin
    return Axis(low, high, _step((high - low) / TICKS))


def _together(values: Sequence[float], usual: float) -> tuple[float, float]:
    """The ends of sorted figures without up to a quarter that is far from all others."""
    low, high = 0, len(values) - 1
    for count in range(1, len(values) // 4 + 1):
        last = len(values) - 1 - count
        if values[last + 1] - values[last] > FAR * max(values[last] - values[low], usual) > 0:
            high = min(high, last)
        if values[count] - values[count - 1] > FAR * max(values[high] - values[count], usual) > 0:
            low = count
    return values[low], values[high]


def _step(least: float) -> float:
    """The smallest of 1, 2 and 5 times a power of ten that is not less."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= least * (1 - 1e-9))
