"""Whether a report is still what its run would write again: made of the same, by the same code.

Rendering takes longer than all else in a run that finds everything in the store. What a report was
made of is remembered in the store: inputs, settings and installed packages by what the lock says of
them; code, stored artefacts and the files of the report by their size and times.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mbench_published

import mbench
from mbench.plan.reached import evaluations_with_looks
from mbench.storage.artefacts import digest_of
from mbench.storage.file_hash import state_of
from mbench.storage.records import to_plain
from mbench.storage.store import Key, Store

if TYPE_CHECKING:
    from mbench.api.request import Request
    from mbench.core.admission import Finding
    from mbench.core.early import EarlyGoal
    from mbench.run.session import Outcome

HOME = Path(mbench.__file__).parent
"""The folder of the code."""

SHIPPED = Path(mbench_published.__file__).parent
"""Figures of papers that come with it; more may lie in `published/` beside a report's folder."""


def made_of(
    asked: Request,
    folder: Path,
    lock: str,
    findings: Sequence[Finding],
    command: Sequence[str],
    outcome: Outcome,
) -> str | None:
    """A digest of all that decides a report; None where it must be written in any case.

    That is after a run that did anything or could not do all of it, where plugins have panels,
    whose code may do anything, and where artefacts have no times, as in object storage.
    """
    if outcome.early or not is_complete(outcome):
        return None
    return _digest(
        asked,
        folder,
        {"lock": lock, "findings": to_plain(tuple(findings)), "command": list(command)},
        {"efficiency": to_plain(tuple(outcome.efficiency))},
        {*outcome.masks, *outcome.evaluations},
    )


def made_early_of(
    asked: Request,
    folder: Path,
    lock: str,
    findings: Sequence[Finding],
    command: Sequence[str],
    goal: EarlyGoal | None,
    outcome: Outcome | None = None,
) -> str | None:
    """Likewise of a run that ends at a precision, by what is stored: known before the run begins,
    whose model need not be loaded then. None where it must run in any case.

    After it, `outcome` says whether it reached its goal. Within hours every run goes on; and a
    model's efficiency is found while it runs.
    """
    if goal is None or goal.hours is not None or asked.plan.suite.efficiency is not None:
        return None
    if outcome is not None and not is_complete(outcome):
        return None
    evaluations = evaluations_with_looks(asked.plan, asked.store)
    if evaluations is None:
        return None
    keys = set(evaluations)
    for key, looks in evaluations.items():
        keys |= {look.key(key, number) for number, look in enumerate(looks.looks)}
    there = {key for key in keys if asked.store.has_items(key)}
    said = {"lock": lock, "findings": to_plain(tuple(findings)), "command": list(command)}
    return _digest(asked, folder, said, {"goal": to_plain(goal)}, there)


def is_complete(outcome: Outcome) -> bool:
    """Whether nothing failed, and nobody ended the run."""
    problems = outcome.mask_problems or outcome.evaluation_problems or outcome.task_problems
    return not (outcome.interrupted or problems)


def _digest(
    asked: Request, folder: Path, said: dict[str, Any], of_run: dict[str, Any], found: set[Key]
) -> str | None:
    """Of what was said and what is stored; `found` is what a report is made of beside the rest."""
    if asked.registry.panels:
        return None
    try:
        stored = _stored(asked, found)
        if stored is None:
            return None
        beside = folder.resolve().parent / "published"
        read = [*_files(HOME), *_files(SHIPPED), *_files(beside)]
        code = {str(path): state_of(path) for path in read}
    except OSError:
        return None
    return digest_of(
        {
            **said,
            **of_run,
            "changes": list(asked.changes),
            "stored": stored,
            "code": code,
        }
    )


def _stored(asked: Request, found: set[Key]) -> dict[str, Any] | None:
    """The state of each artefact that a report is made of; None where they are no files.

    Raises `OSError` where one is gone that the run found. Of others, such as what items ask and
    what was counted with a statistic, being absent is a state, too.
    """
    plan = asked.plan
    others = {plan.item_texts_key(model, task) for model in plan.models for task in plan.tasks}
    for cell in plan.cells:
        others |= {job.key for jobs in cell.statistics.values() for job in jobs}
        others |= {cell.mask_key} if cell.mask_key is not None else set()
    stored: dict[str, Any] = {}
    for key in found | others:
        path = asked.store.path(key)
        if not isinstance(path, Path):
            return None
        there = key in found or path.exists()
        stored[f"{key.kind}/{key.digest}"] = state_of(path) if there else None
    return stored


def is_current(store: Store, folder: Path, digest: str | None) -> bool:
    """Whether the report in `folder` was made of what has this digest, and not changed since."""
    if digest is None:
        return False
    known = store.read_json(_key(folder))
    return known is not None and known == _record(folder, digest)


def remember(store: Store, folder: Path, digest: str | None) -> None:
    """The report that was just written was made of what has this digest."""
    if digest is not None and store.writable:
        store.write_json(_key(folder), _record(folder, digest), replace=True)


def _record(folder: Path, digest: str) -> dict[str, Any]:
    files = {path.relative_to(folder).as_posix(): state_of(path) for path in _files(folder)}
    return {"made of": digest, "files": files}


def _key(folder: Path) -> Key:
    place = str(folder.resolve())
    return Key.of("facts", f"report in {place}", {"kind": "report", "place": place})


def _files(folder: Path) -> Iterable[Path]:
    """All files below a folder, in order, but compiled code."""
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name != "__pycache__")
        yield from (Path(root) / name for name in sorted(names))
