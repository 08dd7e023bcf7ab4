"""What is known of an exported checkpoint: its form, its sizes and its folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Form = Literal["transformers", "original"]
"""Which programs the checkpoint is for; the two differ for DeepSeek-MoE only."""


@dataclass(frozen=True)
class Size:
    """Size of a checkpoint's tensors."""

    parameters: int
    bytes: int


@dataclass(frozen=True)
class Export:
    """The checkpoint that was written."""

    directory: Path
    full: Size
    pruned: Size
    num_experts: int
    kept: int
    top_k: int
    """Experts per token in the full model."""
    pruned_top_k: int
    left_out: tuple[str, ...]
    """Tensors that the model's class ignores and that were not copied."""
    dtype: str
    """The dtype of most parameters, by torch's name."""
    model_type: str
    """`model_type` in its config.json."""
    full_model_type: str
    """`model_type` of the full model."""

    @property
    def is_translated(self) -> bool:
        """Whether it is of another family than the full model."""
        return self.model_type != self.full_model_type
