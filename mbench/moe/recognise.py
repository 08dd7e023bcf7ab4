"""Which experts of a full checkpoint a pruned one holds, and what else differs."""

from __future__ import annotations

from pathlib import Path

from mbench.core.recognised import Recognised


def recognise(full: Path, pruned: Path) -> Recognised:
    """Compare the weights of two checkpoints in local folders, reading each tensor at most twice.

    Raises `UnsupportedModel` or `ModelNotFound` for what is no pair of such checkpoints.
    """
    raise NotImplementedError
