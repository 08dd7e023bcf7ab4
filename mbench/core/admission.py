"""What was found out about a run's inputs before its first forward pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["fine", "note", "refused"]
"""`note`: a reader should know it; `refused`: a run with it would measure something else."""


@dataclass(frozen=True)
class Finding:
    """One fact about one input, e.g. how many prompts of a task are cut on a model."""

    section: Literal["models", "methods", "corpora", "perplexity", "tasks", "retain"]
    """Of the suite."""
    name: str
    """The input's name in that section."""
    fact: str
    """What was looked at, in a few words: `documents`, `largest token id`."""
    words: str
    """What was found."""
    level: Level = "fine"
    model: str | None = None
    """The model that it holds for; None: for all of them."""

    @property
    def subject(self) -> str:
        """The input, and the model if there is one."""
        where = f"{self.section}.{self.name}"
        return where if self.model in (None, self.name) else f"{where} on {self.model}"
