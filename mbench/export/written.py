"""What is known of an exported checkpoint: its form, its sizes and its folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Kind = Literal["even", "merged", "uneven", "uneven-merged", "mapped", "constants"]
"""What is left of the experts: as many in every layer (`even`), the same with merged ones that
dropped experts' tokens are not sent to (`merged`), both with numbers that differ between layers, or
whole routers whose tokens go from dropped experts to merged ones (`mapped`) or to constants."""

STOCK: tuple[Kind, ...] = ("even", "merged")
"""What stock classes can be configured for."""

Form = Literal["transformers", "original"]
"""Which programs the checkpoint is for; the two differ for DeepSeek-MoE only."""


@dataclass(frozen=True)
class Size:
    """Size of a checkpoint's tensors."""

    parameters: int
    """Those of plain numbers, in whatever form weights are stored."""
    bytes: int
    """As stored."""


@dataclass(frozen=True)
class Export:
    """The checkpoint that was written."""

    directory: Path
    full: Size
    pruned: Size
    num_experts: int
    kept: tuple[int, ...]
    """Experts kept, by layer."""
    top_k: int
    """Experts per token in the full model."""
    pruned_top_k: tuple[int, ...]
    """The same in the pruned one, by layer."""
    kind: Kind
    left_out: tuple[str, ...]
    """Tensors that the model's class ignores and that were not copied."""
    dtype: str
    """The dtype of most parameters, by torch's name; of weights in fewer bits, what they are
    computed in."""
    stored_form: str
    """How weights are stored, if in fewer bits, in words, e.g. `FP8 128x128`; else empty."""
    activations: str
    """What that form asks of activations, in words; else empty."""
    model_type: str
    """`model_type` in its config.json."""
    full_model_type: str
    """`model_type` of the full model."""

    @property
    def is_stock(self) -> bool:
        """Whether stock transformers loads it; otherwise it is in mbench's own form."""
        return self.kind in STOCK

    @property
    def is_translated(self) -> bool:
        """Whether it is of another family than the full model."""
        return self.model_type != self.full_model_type


def span(counts: tuple[int, ...]) -> str:
    """A number that may differ between layers: `6`, or `2 to 8`."""
    return str(counts[0]) if len(set(counts)) == 1 else f"{min(counts)} to {max(counts)}"
