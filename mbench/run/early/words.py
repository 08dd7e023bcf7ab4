"""What is asked of an early verdict, and what it came to, in words."""

from __future__ import annotations

import math

from mbench.core.early import EarlyFigure, EarlyGoal, Ending
from mbench.core.errors import MbenchError, shown

WHY: dict[Ending, str] = {
    "precise": "difference to unpruned known to",
    "settled": "apart from all others, difference to unpruned known to",
    "hopeless": "below the best, difference to unpruned known to",
    "out of time": "the hours were over, difference to unpruned known to",
    "whole": "difference to unpruned known to",
}


def in_words(figure: EarlyFigure) -> str:
    """A status's reason: `after 400 of 2,000 items: difference to unpruned known to ±0.010`."""
    after = f"after {figure.items:,} of {figure.of:,} items"
    if figure.untold:
        return f"{after}: {figure.untold}"
    return f"{after}: {WHY[figure.ended]} ±{figure.half:.3f}"


def one_process_alone(processes: int) -> str:
    """What an early run does with a suite's processes."""
    return (
        f"early verdicts are found in one process, not in {processes}, so that few items left out"
        " save no time on the clock: what a mask still needs depends on what all others have shown"
        " by then"
    )


def goal_of(precision: float | None, hours: float | None) -> EarlyGoal | None:
    """What the two options ask for; None where neither is given.

    Raises `MbenchError` for a value that is no positive number, and for a precision of 1 or more.
    """
    for name, value in (("precision", precision), ("hours", hours)):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if value is not None and not (number and math.isfinite(value) and value > 0):
            raise MbenchError(f"{name} takes a number above 0, got {shown(value)}")
    if precision is not None and precision >= 1:
        raise MbenchError(
            f"precision takes a number below 1, got {shown(precision)}: 0.01 is one point of a"
            " percentage, and 1 % of a perplexity"
        )
    if precision is None and hours is None:
        return None
    return EarlyGoal(precision, hours)
