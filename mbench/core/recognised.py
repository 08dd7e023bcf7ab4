"""What a pruned checkpoint is, beside the full one that it may have been made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Recognised:
    """What `mbench.moe.recognition.recognise.recognise` found out."""

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

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        kept = None
        if self.keep is not None:
            kept = [np.flatnonzero(row).tolist() for row in self.keep]
        return {
            "experts": None if self.keep is None else self.keep.shape[1],
            "kept": kept,
            "order": [list(layer) for layer in self.order],
            "differs": list(self.differs),
            "problems": list(self.problems),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Recognised:
        """What `to_json` gave."""
        keep = None
        if data["kept"] is not None:
            keep = np.zeros((len(data["kept"]), data["experts"]), dtype=bool)
            for row, kept in zip(keep, data["kept"], strict=True):
                row[kept] = True
        order = tuple(tuple(layer) for layer in data["order"])
        return cls(keep, order, tuple(data["differs"]), tuple(data["problems"]))
