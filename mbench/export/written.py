"""What an export writes: the form of the checkpoint, its size, and where it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Form = Literal["transformers", "original"]
"""What the checkpoint is written for; they differ for DeepSeek-MoE only."""


@dataclass(frozen=True)
class Size:
    """Of a checkpoint's tensors."""

    parameters: int
    bytes: int


@dataclass(frozen=True)
class Export:
    """What was written."""

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
    """That most parameters are stored in, as torch calls it."""
    model_type: str
    """The family of its config.json."""
    full_model_type: str
