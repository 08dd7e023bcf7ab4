"""A stage of a run: published checkpoints are recognised, and evaluated where they are no mask."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from mbench.core.cell_results import TaskStatus
from mbench.core.errors import StoreError, caught
from mbench.core.interfaces import ExpertMask
from mbench.core.recognised import Recognised
from mbench.plan.cells import Cell
from mbench.plan.models import PlannedModel
from mbench.run.mask_checks import frozen
from mbench.run.session import ModelSession
from mbench.storage.store import Key


def restore_recognised(session: ModelSession) -> list[Cell]:
    """Take what is known of published checkpoints; returns the cells of which nothing is."""
    unknown = []
    for cell in session.cells:
        if cell.method.published is None or cell.mask_key is None:
            continue
        stored = session.store.read_json(cell.mask_key)
        if stored is None:
            unknown.append(cell)
        else:
            _keep(session, cell, stored)
    return unknown


def recognise_checkpoints(session: ModelSession, cells: Sequence[Cell]) -> None:
    """Compare checkpoints with the full model, file by file; a failure costs its cell."""

    def done(cell: Cell) -> bool:
        stored = session.store.read_json(_key(cell))
        if stored is not None:
            _keep(session, cell, stored)
        return stored is not None

    def name(cell: Cell) -> str:
        return f"recognise {_key(cell).digest}"

    def do(cell: Cell) -> None:
        session.progress.stage(f"recognise {cell.method.name}")
        try:
            with session.timed("recognise"):
                _keep(session, cell, session.store.write_json(_key(cell), _found(session, cell)))
        except StoreError:
            raise
        except Exception as error:
            problem = TaskStatus("failed", caught(error))
            session.outcome.mask_problems[cell.key] = problem
            session.progress.warning(f"{cell.label}: {problem.reason}")

    session.sharing.each(cells, name, done, do)


def differing(session: ModelSession) -> Iterator[PlannedModel]:
    """The checkpoints that no mask stands for, as far as that is known."""
    for cell in session.cells:
        recognised = session.outcome.recognised.get(cell.key)
        if cell.method.published is not None and recognised and not recognised.is_mask:
            yield cell.method.published


def _key(cell: Cell) -> Key:
    assert cell.mask_key is not None
    return cell.mask_key


def _found(session: ModelSession, cell: Cell) -> dict[str, Any]:
    from mbench.moe.recognition.recognise import recognise

    full, published = session.model.checkpoint, cell.method.published
    assert full is not None
    assert published is not None
    assert published.checkpoint is not None
    return recognise(full.all_files(), published.checkpoint.all_files()).to_json()


def _keep(session: ModelSession, cell: Cell, stored: Any) -> None:
    """A mask that computes what the checkpoint computes joins the others; a router is sliced."""
    found = Recognised.from_json(stored)
    if found.keep is not None:
        found = replace(found, keep=frozen(found.keep))
    session.outcome.recognised[cell.key] = found
    if found.keep is not None and found.is_mask:
        session.outcome.masks[_key(cell)] = ExpertMask(found.keep)
