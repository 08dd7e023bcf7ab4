"""Which experts of a full checkpoint a pruned one holds, and what else differs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Recognised:
    """A pruned checkpoint beside the full one that it may have been made of."""

    keep: np.ndarray | None
    """bool [L, N], the experts that it holds; None where that cannot be said, or it would mislead
    (experts merged, of another model, twice the same)."""
    order: tuple[tuple[int, ...], ...]
    """Per layer, the full model's expert that expert i of the pruned one is; empty where unknown.
    """
    differs: tuple[str, ...]
    """In words, what else is not the full model's, e.g. `router of 3 layers`, `32 tensors, e.g.
    lm_head.weight`, `top-k 4 instead of 8`, `expert values up to 5 %`; with none of these the mask
    on the full model computes what the checkpoint computes."""
    problems: tuple[str, ...]
    """In words, why it is no selection of experts, e.g. `layer 3: expert 5 is a merger: 0.5 x 7 +
    0.5 x 9`."""

    @property
    def is_mask(self) -> bool:
        """Whether evaluating the mask on the full model, router sliced, is evaluating it."""
        return self.keep is not None and not self.differs and not self.problems


def recognise(full: Path, pruned: Path) -> Recognised:
    """Compare the weights of two checkpoints in local folders, reading each tensor at most twice.

    Raises `UnsupportedModel` or `ModelNotFound` for what is no pair of such checkpoints.
    """
    raise NotImplementedError
