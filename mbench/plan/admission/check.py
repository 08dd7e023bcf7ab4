"""What all modules of admission give: a check with the key of its findings."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from mbench.core.admission import Finding
from mbench.plan.tasks import TaskSize
from mbench.storage.records import to_plain
from mbench.storage.store import Key, Store


class RefusedElsewhere(Exception):
    """Another check refuses what this one would look at: it finds nothing, and looks again."""


def keep_size(store: Store, key: Key, size: TaskSize) -> None:
    """Store what a check counted, so that plans know it before a run."""
    store.write_json(key, to_plain(size))


@dataclass(frozen=True)
class Check:
    """A look at one input."""

    run: Callable[[], Iterable[Finding]]
    """Reads what it needs: texts, a tokenizer, task definitions; never weights.

    May raise `RefusedElsewhere`, so that a mistake is told once.
    """
    key: Key | None = None
    """See `mbench.plan.fact_keys.admission_key`; None: so quick that it is not stored."""
    also: Key | None = None
    """What it stores beside its findings: it looks again where that is absent."""
