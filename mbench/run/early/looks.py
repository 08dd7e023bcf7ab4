"""A prepared task in looks: parts of it that are evaluated and stored one by one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from mbench.run.early.order import looks_of

if TYPE_CHECKING:
    from mbench.core.evaluation import Evaluator


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
