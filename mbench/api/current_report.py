"""Whether a report is still what its run would write again: made of the same, by the same code.

Rendering takes longer than all else in a run that finds everything in the store. What a report was
made of is remembered in the store: inputs and settings by what the lock says of them; code, stored
artefacts and the files of the report by their size and times.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mbench_published

import mbench
from mbench.storage.artefacts import digest_of
from mbench.storage.file_hash import state_of
from mbench.storage.records import to_plain
from mbench.storage.store import Key, Store

if TYPE_CHECKING:
    from mbench.api.request import Request
    from mbench.core.admission import Finding
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
    problems = outcome.mask_problems or outcome.evaluation_problems or outcome.task_problems
    if outcome.interrupted or outcome.early or problems or asked.registry.panels:
        return None
    keys = [*outcome.masks, *outcome.evaluations]
    try:
        paths = {f"{key.kind}/{key.digest}": asked.store.path(key) for key in keys}
        stored = {name: state_of(path) for name, path in paths.items() if isinstance(path, Path)}
        if len(stored) < len(paths):
            return None
        beside = folder.resolve().parent / "published"
        read = [*_files(HOME), *_files(SHIPPED), *_files(beside)]
        code = {str(path): state_of(path) for path in read}
    except OSError:
        return None
    return digest_of(
        {
            "lock": lock,
            "findings": to_plain(tuple(findings)),
            "command": list(command),
            "changes": list(asked.changes),
            "efficiency": to_plain(tuple(outcome.efficiency)),
            "stored": stored,
            "code": code,
        }
    )


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
