"""The second stage of a run: a mask for every cell, from stored statistics."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from mbench.core.cell_results import SearchCost, TaskStatus
from mbench.core.errors import Damaged, PluginError, StoreError, caught
from mbench.core.interfaces import ExpertMask
from mbench.plan.cells import Cell
from mbench.run.mask_checks import frozen
from mbench.run.mask_maker import MaskMaker
from mbench.run.probe import Probes
from mbench.run.profile_stage import missing_jobs, profile
from mbench.run.session import ModelSession
from mbench.storage.mask_json import (
    mask_from_json,
    mask_to_json,
    scores_from_json,
    scores_to_json,
)
from mbench.storage.records import from_plain, to_plain
from mbench.storage.store import Key


def restore_masks(session: ModelSession) -> list[Cell]:
    """Take the masks that are stored; returns the cells whose masks are to be made, in order."""
    pending = []
    for cell in session.cells:
        if cell.method.published is None and not _restore(session, cell):
            pending.append(cell)
    return pending


def _restore(session: ModelSession, cell: Cell) -> bool:
    """Take a cell's mask, if it is stored."""
    stored = session.store.read_json(cell.mask_key) if cell.mask_key else None
    if cell.mask_key is None or stored is None:
        return False
    session.outcome.masks[cell.mask_key] = _restored(session, cell, stored)
    return True


def _restored(session: ModelSession, cell: Cell, stored: Any) -> ExpertMask:
    mask = mask_from_json(stored, session.model.facts.layers)
    known, place = session.outcome.scores, (cell.model, cell.method.name)
    # A scorer knows no budget, but perhaps chance: the first seed's are told, whatever was stored.
    if place not in known or cell.seed == cell.method.seeds[0]:
        known[place] = scores_from_json(stored["scores"], mask.keep.shape)
    session.outcome.stabilities[cell.key] = stored["stability"]
    if "search" in stored:
        session.outcome.searches[cell.key] = from_plain(SearchCost, stored["search"])
    return ExpertMask(frozen(mask.keep), mask.notes, mask.stand_in)


def make_masks(
    session: ModelSession,
    cells: Sequence[Cell],
    statistic_problems: Mapping[Key, str],
    too_late: Callable[[], TaskStatus | None] = lambda: None,
) -> None:
    """Make and store masks, candidates first; a failure costs its cell and those built on it.

    A statistic that turns out to be damaged is collected again. `too_late` is asked before each
    mask, and gives the reason why it is not begun any more.
    """
    probes = Probes(session)
    maker = MaskMaker(session.model, session.store, session.plan.suite.resamples, probes.probe)
    problems = dict(statistic_problems)

    def done(cell: Cell) -> bool:
        return _restore(session, cell)

    def do(cell: Cell) -> None:
        if late := too_late():  # told with all that the run lacks
            session.outcome.mask_problems[cell.key] = late
            return
        problem = _obstacle(session, cell, problems)
        if problem is None:
            session.progress.stage(f"mask {cell.label}")
            try:
                try:
                    _make(session, maker, probes, cell)
                except Damaged:
                    problems.update(profile(session, missing_jobs(session, [cell])))
                    _make(session, maker, probes, cell)
                return
            except StoreError:
                raise
            except Exception as error:
                problem = TaskStatus("failed", caught(error))
        session.outcome.mask_problems[cell.key] = problem
        session.progress.event(
            "mask", cell=cell.label, status=problem.status, reason=problem.reason
        )

    with session.timed("masks"):
        for wave in _waves(cells):
            session.sharing.each(wave, _name, done, do)


def _name(cell: Cell) -> str:
    return cell.label if cell.mask_key is None else f"mask {cell.mask_key.digest}"


def _waves(cells: Sequence[Cell]) -> Iterator[list[Cell]]:
    """Cells in order, in parts of which none is the candidate of another."""
    wave: list[Cell] = []
    for cell in cells:
        if any(cell.candidate is not None and cell.candidate == each.mask_key for each in wave):
            yield wave
            wave = []
        wave.append(cell)
    yield wave


def _obstacle(
    session: ModelSession, cell: Cell, statistic_problems: Mapping[Key, str]
) -> TaskStatus | None:
    """Why the cell cannot even be tried."""
    if cell.problem:
        return TaskStatus("failed", cell.problem)
    for jobs in cell.statistics.values():
        for job in jobs:
            # Another worker may have collected what failed here.
            if job.key in statistic_problems and not session.store.has_statistic(job.key):
                return TaskStatus("blocked", statistic_problems[job.key])
    name = cell.method.candidate
    if name is not None and cell.candidate not in session.outcome.masks:
        return TaskStatus("blocked", f"its candidate {name!r} has no mask at this budget")
    return None


def _make(session: ModelSession, maker: MaskMaker, probes: Probes, cell: Cell) -> None:
    masks = session.outcome.masks
    start = time.perf_counter()
    made = maker.make(cell, masks[cell.candidate] if cell.candidate is not None else None)
    seconds = time.perf_counter() - start
    if cell.mask_key is None:
        raise PluginError(cell.problem)
    note = probes.note(cell)
    if note:
        session.progress.warning(f"{cell.label}: {note}")
        made = replace(made, mask=replace(made.mask, notes=(*made.mask.notes, note)))
    content = {
        **mask_to_json(made.mask, session.model.facts.layers),
        "scores": scores_to_json(made.scores),
        "stability": made.stability,
    }
    cost = probes.cost(cell)
    # A search is priced by the tokens of its forward passes.
    session.speeds.made(cell.method.name, seconds if cost is None else 0.0)
    session.outcome.made_masks += 1
    if cost is not None:
        content["search"] = to_plain(cost)
    mask = _restored(session, cell, session.store.write_json(cell.mask_key, content))
    masks[cell.mask_key] = mask
    session.progress.event("mask", cell=cell.label, status="ok", mask=mask.content_hash)
