"""A task in looks: parts of it, in a random order, that are evaluated and stored one by one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from mbench.plan.stored_looks import Look
from mbench.plan.tasks import TaskSize
from mbench.storage.artefacts import canonical

if TYPE_CHECKING:
    from mbench.core.evaluation import Evaluator

SHARES = (0.1, 0.3, 0.6)
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


def error_share(looks: int, made: int) -> float:
    """Of the error that all looks at a task may make together, the part that this one may.

    As large as the part of the items that it adds, of those before the last look: what is said of
    all items cannot err. The parts add up to 1, which holds whatever the looks have in common and
    whenever somebody stops (Bonferroni; spending in proportion as Lan and DeMets 1983).

    Args:
        looks: of the task.
        made: so many of them, from 1, and not all.
    """
    shares = (0.0, *SHARES[len(SHARES) - (looks - 1) :])
    return (shares[made] - shares[made - 1]) / shares[-1]


@dataclass(frozen=True)
class TaskLooks:
    """A task, and the parts that its looks add."""

    whole: Evaluator
    parts: tuple[Evaluator, ...]
    """The whole alone where it is one look."""

    @classmethod
    def of(cls, whole: Evaluator, fingerprint: Mapping[str, Any]) -> TaskLooks:
        """Cut a task as `looks_of` says."""
        looks = looks_of(whole.item_names, whole.together, fingerprint)
        parts = (whole,) if len(looks) == 1 else tuple(whole.part(look) for look in looks)
        return cls(whole, parts)

    @property
    def count(self) -> int:
        """Looks."""
        return len(self.parts)

    @cached_property
    def names(self) -> tuple[list[str], ...]:
        """The items that each look adds."""
        return tuple(part.item_names for part in self.parts)

    @cached_property
    def looks(self) -> tuple[Look, ...]:
        """What the store keeps of them."""
        sizes = (TaskSize(part.items, part.tokens, part.generated) for part in self.parts)
        return tuple(Look.of(size, names) for size, names in zip(sizes, self.names, strict=True))

    @cached_property
    def unit(self) -> np.ndarray:
        """int64 [items]: what is evaluated in one piece, from 0, in the order of all items."""
        return np.unique(np.asarray(self.whole.together), return_inverse=True)[1]

    @property
    def in_one_go(self) -> bool:
        """Whether a run that needs all items evaluates them in one go.

        Other batches change the last digits of log-likelihoods, so that ordinary runs evaluate them
        in looks, too: then whatever was there before, the figures are the same to the last bit.
        Generated answers are the same in any batch, and their batches end with few rows.
        """
        return self.count == 1 or self.whole.generated > 0

    @property
    def tokens(self) -> int:
        """Forward tokens of one mask in a run that needs all items."""
        return self.whole.tokens if self.in_one_go else sum(part.tokens for part in self.parts)
