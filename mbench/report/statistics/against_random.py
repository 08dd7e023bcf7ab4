"""A method's figure compared with those of the seeds of random pruning."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mbench.report.statistics.inference import NOISE


def worse_seeds(value: float, seeds: Sequence[float], higher: bool = True) -> int:
    """How many of the seeds' figures are worse than `value`; equal ones are not.

    If the method were one more random mask, each number from 0 to S would be equally likely.
    """
    sign = 1 if higher else -1
    return sum(sign * (value - seed) > NOISE for seed in seeds)


def reversing_seeds(value: float, seeds: Sequence[float]) -> list[int]:
    """Positions of seeds that, as the only baseline, would change the sign of the difference.

    A seed equal to `value` makes a tie and does not count.
    """
    over_mean = value - math.fsum(seeds) / len(seeds)
    return [
        place
        for place, seed in enumerate(seeds)
        if abs(value - seed) > NOISE and (value - seed) * over_mean < 0
    ]
