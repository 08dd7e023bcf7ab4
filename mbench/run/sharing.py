"""Which pieces of work this process does, where others work on the same store.

Nobody hands anything out: every process goes through the same pieces, each from another place on,
claims in the store what nobody else has, and comes back for what others have claimed until all of
it is stored. What a process claimed that is gone is taken over by another.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from mbench.core.interruption import stop_if_asked
from mbench.storage.claims import LEASE
from mbench.storage.store import Store

T = TypeVar("T")

LOOKS = 0.5
"""Seconds between two looks at what others have claimed."""


class Sharing(Protocol):
    """How pieces of work are shared with others."""

    def mine(
        self, pieces: Sequence[T], name: Callable[[T], str], done: Callable[[T], bool]
    ) -> Iterator[T]:
        """Those that this process is to do, one after another; all are dealt with at the end.

        Args:
            pieces: in the order in which one process alone would do them.
            name: what a piece is, the same text in every process.
            done: whether it needs nobody any more, e.g. since another process has stored it. Asked
                right before a piece is given, too, and never of one that this process was given.
        """


class Alone:
    """Nobody else works on the store, or may do the same again."""

    def mine(
        self, pieces: Sequence[T], name: Callable[[T], str], done: Callable[[T], bool]
    ) -> Iterator[T]:
        """Those that are not done."""
        for piece in pieces:
            if not done(piece):
                yield piece


@dataclass(frozen=True)
class Shared:
    """One of several processes, wherever they run, that share a store."""

    store: Store
    number: int
    """From 0."""
    of: int
    """So many begin at different places; more or fewer may take part."""
    lease: float = LEASE

    def mine(
        self, pieces: Sequence[T], name: Callable[[T], str], done: Callable[[T], bool]
    ) -> Iterator[T]:
        """Those that no other process has; each is claimed until the next one is asked for."""
        start = len(pieces) * (self.number % self.of) // self.of
        left = [*pieces[start:], *pieces[:start]]
        while left:
            others: list[T] = []
            for piece in left:
                stop_if_asked()
                if done(piece):
                    continue
                claim = self.store.claim(name(piece), self.lease)
                if claim is None:
                    others.append(piece)
                    continue
                with claim.kept():
                    # It may have been finished between the two looks.
                    if not done(piece):
                        yield piece
            if len(others) == len(left):
                time.sleep(LOOKS)
            left = others
