"""Progress as tokens that add up to the whole, however the work was cut."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Meter:
    """Passes on reports to `advance`, never more than `tokens` in sum."""

    tokens: int
    advance: Callable[[int], None] | None
    done: int = field(default=0, init=False)
    share: float = field(default=0.0, init=False)

    def add(self, tokens: int) -> None:
        """So many tokens are done."""
        tokens = min(tokens, self.tokens - self.done)
        self.done += tokens
        if self.advance is not None and tokens:
            self.advance(tokens)

    def add_share(self, share: float) -> None:
        """Such a share of the whole is done."""
        self.share += share
        self.add(round(self.share * self.tokens) - self.done)

    def finish(self) -> None:
        """All is done, also what was counted but not needed."""
        self.add(self.tokens - self.done)
