"""Spreads the hours of a run: in which order masks come, and until when they are made."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

from mbench.core.cell_results import TaskStatus
from mbench.plan.cost import stored_size
from mbench.plan.tasks import TaskSize
from mbench.run.masked_models import made
from mbench.run.published_stage import differing

if TYPE_CHECKING:
    from mbench.plan.cells import Cell
    from mbench.run.masked_models import Pending
    from mbench.run.session import ModelSession

MASKS = 0.5
"""Of a model's time that is left once it is profiled, the part after which no mask is begun: a
search for masks must leave time to evaluate any."""

SAVINGS = 0.1
"""Of a model's time, the part after which no measurement of what pruning saves is begun before all
masks had their looks."""

Lacking: TypeAlias = list[tuple[str, TaskSize | None]]
"""Of a checkpoint, the tasks that it lacks: what speeds know each by, and its size."""

OVER = "the hours were over before this"
NO_TIME = TaskStatus("interrupted", f"{OVER}: run it again to go on")
NOTHING_IN_TIME = TaskStatus(
    "interrupted", "the hours were over before the unpruned model was evaluated: run it again"
)


def no_time_for(seconds: float) -> TaskStatus:
    """That something which is expected to take so long was not begun; 0 where that is unknown."""
    if seconds == 0:
        return NO_TIME
    needed = f"it takes about {seconds / 3600:.2g} hours more"
    return TaskStatus("interrupted", f"{OVER}: {needed}, run it again to go on")


def end_of(session: ModelSession, hours: float) -> float:
    """When a model's time is over, on the monotonic clock: models get equal parts of what was left
    when its turn came, in which their published checkpoints are evaluated, too."""
    own = session.published_of or session
    models = own.plan.models
    left = own.outcome.begun + 3600 * hours - own.begun
    return own.begun + left / (len(models) - models.index(own.model))


def end_of_masks(
    session: ModelSession, hours: float, lacking: Sequence[Lacking] | None = None
) -> float:
    """Likewise, of its masks: time is left for its published checkpoints that are no mask, as much
    as is expected by the speeds known by now, up to half of all.

    `lacking` is what `lacking_of_checkpoints` gives, for who asks often: it reads the store.
    """
    end = end_of(session, hours)
    if lacking is None:
        lacking = lacking_of_checkpoints(session)
    return end - min(_seconds(session, lacking), (end - session.begun) / 2)


def lacking_of_checkpoints(session: ModelSession) -> list[Lacking]:
    """Of each published checkpoint that is no mask, the tasks without outcome."""
    plan, found = session.plan, []
    for published in differing(session):
        mask = published.unpruned_mask.content_hash
        keys = [(t, plan.evaluation_key(published, mask, plan.suite.router, t)) for t in plan.tasks]
        missing = [task for task, key in keys if not session.store.has_items(key)]
        digests = [plan.task_size_key(session.model, task).digest for task in missing]
        sizes = [stored_size(plan, session.store, session.model, task) for task in missing]
        if missing:
            found.append(list(zip(digests, sizes, strict=True)))
    return found


def _seconds(session: ModelSession, lacking: Sequence[Lacking]) -> float:
    """What they take if they are as fast as masks; 0 where no speed or size is known."""
    speeds = session.speeds.speeds()
    return sum(
        speeds.load + sum(speeds.of(digest, 0.0).seconds(size) for digest, size in tasks if size)
        for tasks in lacking
    )


def end_of_savings(session: ModelSession, hours: float) -> float:
    """Until when what pruning saves is measured before masks are evaluated."""
    return session.begun + SAVINGS * (end_of(session, hours) - session.begun)


def last_mask(session: ModelSession, hours: float) -> float:
    """When no more of a model's masks are begun, on the monotonic clock."""
    now = time.monotonic()
    return now + MASKS * (end_of_masks(session, hours) - now)


def by_turns(cells: Sequence[Cell]) -> list[Cell]:
    """A model's cells in an order whose beginning has something of everything.

    Each method at each budget before any has another seed, each method's budgets next to each
    other, and those that cost a search last; candidates stay before what builds on them.
    """
    methods = {name: at for at, name in enumerate(dict.fromkeys(c.method.name for c in cells))}
    searched = set()
    for cell in cells:
        if cell.search_tokens or (cell.candidate is not None and cell.candidate in searched):
            searched.add(cell.mask_key)

    def place(cell: Cell) -> tuple[bool, int, int]:
        seed = cell.method.seeds.index(cell.seed) if cell.seed in cell.method.seeds else 0
        return cell.mask_key in searched, seed, methods[cell.method.name]

    return sorted(cells, key=place)


def masks_by_turns(session: ModelSession, pending: Sequence[Pending]) -> list[Pending]:
    """Masks in the order of the first cell that each belongs to."""
    identities = {cell.key: masked.identity for cell, masked in made(session)}
    place = dict[tuple[str, str], int]()
    for at, cell in enumerate(by_turns(session.cells)):
        if cell.key in identities:
            place.setdefault(identities[cell.key], at)
    return sorted(pending, key=lambda item: place[item.masked.identity])
