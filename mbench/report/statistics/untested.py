"""What figures rest on, and which families of comparisons are not tested, with the reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mbench.core.cell_results import CellKey
from mbench.report.statistics.families import FamilyName
from mbench.report.statistics.floors import GUESSING, Floor
from mbench.report.statistics.groups import Entry
from mbench.report.statistics.pairing import Paired
from mbench.report.statistics.scores import Score
from mbench.report.words import listing

FEWEST_MASKS = 3
"""Fewest random masks from which the error of their mean is estimated."""


@dataclass(frozen=True)
class Units:
    """What one task's figures rest on."""

    task: str
    unit: str
    """`items` or `documents`."""
    count: int
    effective: float
    """As many of equal size have the same error."""
    too_few: str
    """Why nothing is tested on it; empty if it has enough."""


def units_of(score: Score, paired: Paired[CellKey]) -> tuple[Units, ...]:
    """By task; empty where no cell has all of the score's parts."""
    return tuple(
        Units(task, s.unit, s.units, s.effective, s.too_few())
        for (task, _), s in zip(score.parts, paired.strata, strict=False)
    )


def untested_families(
    units: Sequence[Units],
    floors: Sequence[Floor],
    random: Entry | None,
    full: Entry | None,
    *,
    no_random: str,
) -> dict[FamilyName, str]:
    """Families of which nothing is tested, with the reason.

    `no_random` is why there is no random pruning. `floors` are those of the score's uninformative
    tasks. Pruned models that only guess are not told apart from each other; that pruning brought
    them there is told where the unpruned model does not guess.
    """
    few = _too_few(units)
    guesses = bool(units) and len(floors) == len(units)
    general = few or (GUESSING if guesses else "")
    never = few or (GUESSING if guesses and all(floor.unpruned for floor in floors) else "")
    reasons: dict[FamilyName, str] = {
        "random": general
        or (no_random if random is None else "")
        or few_masks(0 if random is None else len(random.cells)),
        "unpruned": never or ("no figure of the unpruned model" if full is None else ""),
        "methods": general,
    }
    return {name: reason for name, reason in reasons.items() if reason}


def _too_few(units: Sequence[Units]) -> str:
    """Which tasks have too few units, tasks with the same reason together; empty if none has."""
    by_reason: dict[str, list[str]] = {}
    for own in units:
        if own.too_few:
            by_reason.setdefault(own.too_few, []).append(own.task)
    if len(units) == 1:
        return next(iter(by_reason), "")
    return "; ".join(f"{reason} in {listing(tasks)}" for reason, tasks in by_reason.items())


def few_masks(masks: int) -> str:
    """Why so few random masks say nothing about random pruning; empty if they are enough."""
    if masks >= FEWEST_MASKS:
        return ""
    return f"{masks} random mask{'s' if masks > 1 else ''}: at least {FEWEST_MASKS} are needed"
