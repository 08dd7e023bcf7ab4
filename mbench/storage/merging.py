"""Stores that were apart brought together: what one lacks is copied, what both have is compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mbench.storage import artefacts
from mbench.storage.housekeeping import Stored, copied
from mbench.storage.store import Store

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Difference:
    """Two whole artefacts under one key that are not the same, e.g. of two kinds of machines."""

    label: str
    """What it is, for people."""
    what: str
    """How they differ."""


def merge(stored: Stored, destination: Store) -> Difference | bool:
    """Copy one artefact, verified, unless the destination has a whole one, which stays.

    Returns True where it was copied, False where the same is there already, else the difference.
    Raises as `housekeeping.copied`.
    """
    if copied(stored, destination):
        return True
    what = _difference(stored, destination)
    if not what:
        return False
    key = stored.key
    label = artefacts.label_of(key.kind, stored.path, key.digest)
    return Difference(label, what)


def _difference(stored: Stored, destination: Store) -> str:
    """How an artefact differs from the one that the destination has; both are whole."""
    key, path, there = stored.key, stored.path, destination.path(stored.key)
    if key.kind == "statistics":
        ours = artefacts.read_statistic(path, key.digest)
        theirs = artefacts.read_statistic(there, key.digest)
        names = sorted(
            name
            for name in ours.files.keys() | theirs.files.keys()
            if ours.files.get(name) != theirs.files.get(name)
        )
        if ours.profile != theirs.profile:
            names.insert(0, "what was counted")
        return f"{', '.join(names)} differ" if names else ""
    if key.kind == "evaluations":
        return _rows_that_differ(
            artefacts.read_table(path, key.digest).items,
            artefacts.read_table(there, key.digest).items,
        )
    stated = artefacts.read_json(path, key.digest)
    content, other = stated.content, artefacts.read_json(there, key.digest).content
    # What the hub answered, and when, is remembered for where it cannot be asked: either is right.
    if content == other or stated.record.get("kind") == "resolution":
        return ""
    if isinstance(content, dict) and isinstance(other, dict):
        names = sorted(n for n in content.keys() | other.keys() if content.get(n) != other.get(n))
        return f"{', '.join(names)} differ"
    return "the contents differ"


def _same(one: Any, other: Any) -> bool:
    """Whether two values of a cell are equal; it may hold an array, or no number."""
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        return bool(np.array_equal(one, other, equal_nan=np.asarray(one).dtype.kind == "f"))
    return bool(one == other or (one != one and other != other))


def _rows_that_differ(items: pd.DataFrame, others: pd.DataFrame) -> str:
    if list(items.columns) != list(others.columns):
        return f"columns {', '.join(sorted(set(items.columns) ^ set(others.columns)))} differ"
    if items["item"].tolist() != others["item"].tolist():
        return f"{len(items)} and {len(others)} items, not the same ones"
    unequal = np.zeros(len(items), dtype=bool)
    for name in items.columns:
        unequal |= np.array(
            [not _same(one, other) for one, other in zip(items[name], others[name], strict=True)],
            dtype=bool,
        )
    return f"{unequal.sum()} of {len(items)} items differ" if unequal.any() else ""
