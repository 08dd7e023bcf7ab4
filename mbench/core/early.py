"""An early verdict: what a run is asked for that may end before every item was evaluated."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

NOT_FINITE = "an outcome that is not finite"
TOO_FEW = "too few items to tell"

Ending = Literal["precise", "settled", "hopeless", "out of time", "whole"]
"""Why no more items of a cell were evaluated: its difference is known to the asked width, or lies
on one side of all that it is compared with, or it can no longer lead, or the hours were over, or
there were no more items."""


@dataclass(frozen=True)
class EarlyGoal:
    """When a cell has had enough items; at least one of the two is given."""

    precision: float | None = None
    """Half the width, in units of the task's metric, to which a difference is to be known; of
    perplexities in units of the mean loss, so that 0.01 is 1 %."""
    hours: float | None = None
    """Wall-clock hours after which no further look begins."""

    @property
    def in_words(self) -> str:
        """`±0.01 or 2 hours`: what ends a mask before all items, whichever comes first."""
        asked = ((self.precision, "±{:g}"), (self.hours, "{:g} hours"))
        return " or ".join(words.format(value) for value, words in asked if value is not None)


@dataclass(frozen=True)
class EarlyFigure:
    """What is known of one mask on one task after some of its items.

    The items came in a random order fixed by the suite and were looked at a few times; the interval
    holds however often that was.
    """

    items: int
    """Evaluated, of this mask."""
    of: int
    """Items of the task."""
    look: int
    """Looks that were made, from 1."""
    looks: int
    """Looks that make the whole task."""
    figure: float
    """Estimate of the task's metric over all items: the unpruned model's figure on all of them plus
    the difference."""
    difference: float
    """Estimated mask minus unpruned model over all items, adjusted by the outcomes of `predictors`
    finished masks on the same items."""
    low: float
    """Lower bound of the difference, 95 % over all looks."""
    high: float
    among_low: float
    """Likewise, of all masks of its budget on this task at once."""
    among_high: float
    overall_low: float
    """Likewise, of all masks of its budget on all tasks at once, so that means over tasks can be
    bounded by the means of the bounds."""
    overall_high: float
    masks: int
    """Masks that `among` and `overall` hold for at once."""
    predictors: int
    """Finished masks, the unpruned model among them, whose outcomes the estimate is adjusted by."""
    ended: Ending

    @property
    def half(self) -> float:
        """Half of the 95 % interval over all looks; not finite where `untold` says why."""
        return (self.high - self.low) / 2

    @property
    def untold(self) -> str:
        """Why nothing can be said of the difference; empty where something is."""
        if not math.isfinite(self.figure):
            return NOT_FINITE
        return "" if math.isfinite(self.half) else TOO_FEW
