"""The second stage of a run: a mask for every cell, from stored statistics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mbench.core.errors import StoreError
from mbench.core.results import TaskStatus
from mbench.plan.cells import Cell
from mbench.run.mask_maker import MaskMaker, mask_from_json, mask_to_json
from mbench.run.session import ModelSession, reason


def restore_masks(session: ModelSession) -> list[Cell]:
    """Take the masks that are stored; returns the cells whose masks are not, in order."""
    pending = []
    for cell in session.cells:
        stored = session.store.read_json("masks", cell.key) if cell.key else None
        if stored is None:
            pending.append(cell)
        else:
            mask = mask_from_json(stored, session.model.facts.layers)
            session.outcome.masks[cell.key] = mask
    return pending


def make_masks(
    session: ModelSession, cells: Sequence[Cell], corpus_problems: Mapping[str, str]
) -> None:
    """Make and store masks, candidates first; a failure costs its cell and those built on it."""
    maker = MaskMaker(session.model, session.store)
    with session.timed("masks"):
        for cell in cells:
            session.progress.stage(f"mask {cell.label}")
            problem = _obstacle(session, cell, corpus_problems)
            if problem is None:
                try:
                    _make(session, maker, cell)
                    continue
                except StoreError:
                    raise
                except Exception as error:
                    problem = TaskStatus("failed", reason(error))
            session.outcome.mask_problems[cell.label] = problem
            session.progress.event(
                "mask", cell=cell.label, status=problem.status, reason=problem.reason
            )


def _obstacle(
    session: ModelSession, cell: Cell, corpus_problems: Mapping[str, str]
) -> TaskStatus | None:
    """Why the cell cannot even be tried."""
    if cell.problem:
        return TaskStatus("failed", cell.problem)
    for corpus in cell.statistics:
        if corpus in corpus_problems:
            return TaskStatus("blocked", f"no profile on {corpus}: {corpus_problems[corpus]}")
    if cell.candidate is not None and cell.candidate not in session.outcome.masks:
        name = cell.method.candidate
        return TaskStatus("blocked", f"its candidate {name!r} has no mask at this budget")
    return None


def _make(session: ModelSession, maker: MaskMaker, cell: Cell) -> None:
    masks = session.outcome.masks
    mask = maker.make(cell, masks[cell.candidate] if cell.candidate is not None else None)
    masks[cell.key] = mask
    layers = session.model.facts.layers
    session.store.write_json("masks", cell.key, mask_to_json(mask, layers))
    session.progress.event("mask", cell=cell.label, status="ok", mask=mask.content_hash)
