"""In which order a task's items are evaluated, and after how many a look is taken."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mbench.storage.artefacts import canonical
from mbench.storage.store import Key

SHARES = (0.05, 0.1, 0.2, 0.4, 0.7)
"""Of the units of a task, those that have been evaluated at each look before the last."""

FEWEST = 100
"""Units of the first look: with fewer, an interval is either wide or wrong."""


def looks_of(
    names: Sequence[str], together: Sequence[int], fingerprint: Mapping[str, Any]
) -> list[list[int]]:
    """Places in `names` of the items that each look adds, in ascending order.

    Units, i.e. items that are computed together, come in a random order that the task decides and
    no mask or model does: whoever evaluates the task draws the same. A task with too few is one
    look.
    """
    parts = {"names": list(names), "task": dict(fingerprint)}
    digest = hashlib.sha256(canonical(parts).encode()).digest()
    _, unit = np.unique(np.asarray(together), return_inverse=True)
    count = int(unit.max()) + 1
    rank = np.random.default_rng(np.frombuffer(digest, np.uint32)).permutation(count)
    ends = [end for share in SHARES if (end := round(share * count)) >= FEWEST]
    look = np.searchsorted(np.array([*ends, count]), rank[unit], side="right")
    return [np.flatnonzero(look == number).tolist() for number in range(len(ends) + 1)]


def look_key(evaluation: Key, number: int, names: Sequence[str]) -> Key:
    """Key of one look's outcomes: those of an evaluation, and which of its items they are."""
    return Key.of(
        "evaluations",
        f"{evaluation.label}, look {number + 1}",
        {**evaluation.made_by, "kind": "look", "items": list(names)},
    )
