"""Several ways of doing the same, timed in turns in one process."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch

T = TypeVar("T")


@dataclass(frozen=True)
class Ratio:
    """Of the times of two ways, round by round."""

    median: float
    least: float
    greatest: float
    of_least: float
    """Of the least times of both."""

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.least:.2f}-{self.greatest:.2f})"


@dataclass(frozen=True)
class Turns(Generic[T]):
    """What all ways took and gave."""

    seconds: Mapping[str, Sequence[float]]
    results: Sequence[Mapping[str, T]]
    """By round."""

    def fastest(self, ways: Iterable[str]) -> str:
        """The one of these whose median is the least."""
        return min(ways, key=self.median)

    def median(self, way: str) -> float:
        return statistics.median(self.seconds[way])

    def ratio(self, way: str, to: str) -> Ratio:
        """How many times as long as another it takes."""
        pairs = zip(self.seconds[way], self.seconds[to], strict=True)
        ratios = [one / other for one, other in pairs]
        of_least = min(self.seconds[way]) / min(self.seconds[to])
        return Ratio(statistics.median(ratios), min(ratios), max(ratios), of_least)


def in_turns(
    ways: Mapping[str, Callable[[], T]], rounds: int, device: str = "cpu", warm: bool = True
) -> Turns[T]:
    """Call each way once a round: CPU seconds of this process, on a GPU seconds of the clock.

    Every other round goes backwards. `warm`: a first round is not counted.
    """
    clock = time.process_time if device == "cpu" else time.perf_counter
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    results: list[dict[str, T]] = []
    for number in range(rounds + warm):
        found: dict[str, T] = {}
        for name in list(ways)[:: -1 if number % 2 else 1]:
            start = clock()
            found[name] = ways[name]()
            if device != "cpu":
                torch.accelerator.synchronize()
            if number >= warm:
                seconds[name].append(clock() - start)
        if number >= warm:
            results.append(found)
    return Turns(seconds, results)
