"""What a run evaluates: a model under each distinct mask, on the tasks that are asked of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from mbench.core.interfaces import ExpertMask, RouterMode
from mbench.plan.cells import Cell
from mbench.plan.tasks import PlannedTask
from mbench.run.session import ModelSession


@dataclass(frozen=True)
class MaskedModel:
    """What is evaluated; equal masks under equal router modes are one."""

    label: str
    """The first cell that asked for it."""
    mask: ExpertMask
    router: RouterMode

    @cached_property
    def identity(self) -> tuple[str, RouterMode]:
        """Equal for masks that compute the same."""
        return self.mask.content_hash, self.router


@dataclass(frozen=True)
class Pending:
    """A masked model with the tasks that it still has to be evaluated on."""

    masked: MaskedModel
    tasks: tuple[PlannedTask, ...]


def unpruned(session: ModelSession) -> MaskedModel:
    """The model with all of its experts."""
    published = session.model in session.plan.published
    label = session.model.name + ("" if published else " unpruned")
    return MaskedModel(label, session.model.unpruned_mask, session.plan.suite.router)


def asked(session: ModelSession, masked: MaskedModel) -> tuple[PlannedTask, ...]:
    """The tasks that any method with a mask is to be evaluated on."""
    names = set[str]()
    if masked.identity == unpruned(session).identity:
        return session.plan.tasks
    for cell, own in made(session):
        if own.identity == masked.identity:
            names.update(task.name for task in session.plan.tasks_of(cell))
    return tuple(task for task in session.plan.tasks if task.name in names)


def retained(session: ModelSession) -> Iterator[tuple[MaskedModel, float]]:
    """Distinct masks known by now, and the budget that each was first made for."""
    known = {unpruned(session).identity}
    for cell, masked in made(session):
        if masked.identity not in known:
            known.add(masked.identity)
            yield masked, cell.budget.retain


def made(session: ModelSession) -> Iterator[tuple[Cell, MaskedModel]]:
    """The cells to be evaluated whose masks are known by now, several of which may be equal."""
    for cell in session.cells:
        mask = session.outcome.masks.get(cell.mask_key) if cell.mask_key else None
        if mask is not None and cell.method.evaluated:
            yield cell, MaskedModel(cell.label, mask, cell.budget.router)
