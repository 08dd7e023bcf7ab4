"""What a run reports while it goes on; the command line decides how to show it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any


class Progress:
    """Receives every report of a run and shows none; displays override what they show."""

    @contextmanager
    def fetching(self, size: int) -> Iterator[Callable[[int], object]]:
        """So many bytes are fetched inside the block; gives what is to be told of those that came.

        It may be told in any thread.
        """
        yield lambda came: None

    def total(self, tokens: int) -> None:
        """Forward tokens of the whole run as far as known by now, cached ones left out."""

    def advance(self, tokens: int) -> None:
        """So many more forward tokens are done."""

    def time_left(self, seconds: float) -> None:
        """What is left of the run is expected to take so long from now on."""

    def stage(self, text: str) -> None:
        """What is being worked on now."""

    def event(self, kind: str, **values: Any) -> None:
        """Something ended: a profile, a mask, an evaluation. Values are plain JSON."""

    def warning(self, text: str) -> None:
        """Something the user should know and need not act upon."""

    def figures(self, label: str, metrics: Mapping[str, float]) -> None:
        """The declared figures of one evaluated mask."""
