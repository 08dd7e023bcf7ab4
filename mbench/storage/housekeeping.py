"""Looks after a store: what is in it, what of it is damaged, copies into another store."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mbench.core.errors import Damaged
from mbench.storage import artefacts, damaged_folder
from mbench.storage.artefacts import KINDS, Kind, file_name
from mbench.storage.place import Place
from mbench.storage.store import Key, Store

OF_THIS_MACHINE = ("file", "speed")
"""Facts that mean nothing elsewhere, and name files and machines: they are not copied."""


@dataclass(frozen=True)
class Stored:
    """Something that a store keeps."""

    key: Key
    """Its label is the short digest until the artefact was read."""
    path: Place
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
        for each in store.entries(kind) if kind in kinds else ():
            digest = each.name.partition(".")[0]
            if re.fullmatch("[0-9a-f]{64}", digest) and each.name == file_name(kind, digest):
                key = Key(kind, digest, digest[:12], {})
                found.append(Stored(key, each.place, each.size, each.written))
    return found


def set_aside(store: Store) -> list[str]:
    """What was moved away because it was damaged, by name within the store."""
    found = []
    for kind in KINDS:
        folder = f"{damaged_folder.NAME}/{kind}"
        found += [f"{folder}/{each.name}" for each in store.entries(folder)]
    return found


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

    if key.kind != "statistics":
        ((_, content),) = artefacts.files_of(key.kind, stored.path, key.digest)
        return destination.publish_file(key, content)

    def fill(folder: Path) -> None:
        for name, data in artefacts.files_of(key.kind, stored.path, key.digest):
            (folder / name).write_bytes(data)

    return destination.publish_folder(key, fill)


def copies(stored: list[Stored]) -> Iterator[Stored]:
    """Of these, what is of use on other machines."""
    for each in stored:
        described = describe(each, whole=False) if each.key.kind == "facts" else None
        if described is None or described.record.get("kind") not in OF_THIS_MACHINE:
            yield each
