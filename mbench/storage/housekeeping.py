"""Looks after a store: what is in it, what of it is damaged, copies into another store."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mbench.core.errors import Damaged
from mbench.storage import artefacts, damaged_folder
from mbench.storage.artefacts import KINDS, Kind, file_name
from mbench.storage.atomic import new_folder, write_new
from mbench.storage.store import Key, Store

OF_THIS_MACHINE = ("file", "speed")
"""Facts that mean nothing elsewhere, and name files and machines: they are not copied."""


@dataclass(frozen=True)
class Stored:
    """Something that a store keeps."""

    key: Key
    """Its label is the short digest until the artefact was read."""
    path: Path
    size: int
    """Bytes of all its files."""
    written: float
    """Seconds since the epoch."""


@dataclass(frozen=True)
class Described:
    """An artefact with what it says of itself, or why it cannot be used."""

    stored: Stored
    record: Mapping[str, Any]
    """What made it, with its `label`; empty where it is damaged."""
    damage: str = ""

    @property
    def label(self) -> str:
        """What it is, for people."""
        return str(self.record.get("label", "")) if not self.damage else f"damaged: {self.damage}"


def contents(store: Store, kinds: Collection[Kind] = KINDS) -> list[Stored]:
    """Everything whose name is that of an artefact, by kind and key; all else is not ours."""
    found = []
    for kind in KINDS:
        if kind in kinds and (store.root / kind).is_dir():
            for path in sorted((store.root / kind).iterdir()):
                digest = path.name.partition(".")[0]
                if re.fullmatch("[0-9a-f]{64}", digest) and path.name == file_name(kind, digest):
                    size, written = _measure(path)
                    found.append(Stored(Key(kind, digest, digest[:12], {}), path, size, written))
    return found


def set_aside(store: Store) -> list[Path]:
    """What was moved away because it was damaged."""
    return sorted((store.root / damaged_folder.NAME).glob("*/*"))


def _measure(path: Path) -> tuple[int, float]:
    """Bytes of a file or folder, and when it was written; zeros where it is gone by now."""
    try:
        status = path.lstat()
        if not path.is_dir() or path.is_symlink():
            return status.st_size, status.st_mtime
        with os.scandir(path) as entries:
            size = sum(entry.stat(follow_symlinks=False).st_size for entry in entries)
        return size, status.st_mtime
    except OSError:
        return 0, 0.0


def describe(stored: Stored, *, whole: bool) -> Described | None:
    """What an artefact says of itself; None where it is gone by now.

    With `whole` the arrays of a statistic are verified too, which takes as long as reading them.
    """
    key = stored.key
    try:
        if key.kind == "statistics" and not whole:
            return Described(stored, artefacts.read_statistic(stored.path, key.digest).record)
        return Described(stored, artefacts.verify(key.kind, stored.path, key.digest))
    except FileNotFoundError:
        return None
    except Damaged as damage:
        return Described(stored, {}, str(damage))


def copied(stored: Stored, destination: Store) -> bool:
    """Copy one artefact, verified; False where the destination has a whole one, which stays.

    Raises `Damaged`, `FileNotFoundError` where it is gone by now, and `StoreError` where the
    destination cannot be written.
    """
    key = stored.key
    if destination.verify(key) is not None:
        return False

    def write(path: Path) -> None:
        files = artefacts.files_of(key.kind, stored.path, key.digest)
        if key.kind == "statistics":
            with new_folder(path) as folder:
                for name, content in files:
                    (folder / name).write_bytes(content)
        else:
            for _, content in files:
                write_new(path, content)

    return destination.publish(key, write)


def copies(stored: list[Stored]) -> Iterator[Stored]:
    """Of these, what is of use on other machines."""
    for each in stored:
        described = describe(each, whole=False) if each.key.kind == "facts" else None
        if described is None or described.record.get("kind") not in OF_THIS_MACHINE:
            yield each
