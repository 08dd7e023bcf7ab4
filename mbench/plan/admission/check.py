"""What all modules of admission give: a check with the key of its findings."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from mbench.core.admission import Finding
from mbench.storage.store import Key


class RefusedElsewhere(Exception):
    """Another check refuses what this one would look at: it finds nothing, and looks again."""


@dataclass(frozen=True)
class Check:
    """A look at one input."""

    run: Callable[[], Iterable[Finding]]
    """Reads what it needs: texts, a tokenizer, task definitions; never weights.

    May raise `RefusedElsewhere`, so that a mistake is told once.
    """
    key: Key | None = None
    """See `mbench.plan.keys.admission_key`; None: so quick that it is not stored."""
