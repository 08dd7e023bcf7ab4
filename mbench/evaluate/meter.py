"""Counts forward tokens for progress bars, so that they add up to the expected total."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Meter:
    """Calls `advance` with tokens done, never more than `tokens` in sum."""

    tokens: int
    advance: Callable[[int], None] | None
    reported: int = field(default=0, init=False)
    share: float = field(default=0.0, init=False)

    def add(self, tokens: int) -> None:
        """Report tokens that are done."""
        tokens = min(tokens, self.tokens - self.reported)
        self.reported += tokens
        if self.advance is not None and tokens:
            self.advance(tokens)

    def add_share(self, share: float) -> None:
        """Report a share of the total, between 0 and 1, that is done."""
        self.share += share
        self.add(round(self.share * self.tokens) - self.reported)

    def finish(self) -> None:
        """Report the rest, including tokens that were counted but not needed."""
        self.add(self.tokens - self.reported)
