"""Which pieces of work this process does, where others work on the same store.

Nobody hands anything out: every process goes through the same pieces, each from another place on,
claims in the store what nobody else has, and comes back for what others have claimed until all of
it is stored. What a process claimed that is gone, or was not heard of for the claim's lease, is
taken over by another. Should the first one live, it leaves the piece to the other as soon as it
counts tokens again; were both to finish it, the first whole artefact stays.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from mbench.core.errors import StoreError, shortened
from mbench.core.interruption import stop_if_asked
from mbench.storage.claims import LEASE, Claim
from mbench.storage.store import Store

T = TypeVar("T")

LOOKS = 0.5
"""Seconds between two looks at what others have claimed."""


class ClaimLost(StoreError):
    """What this process does is another's by now; nobody but `Sharing.each` deals with it."""


class Sharing(Protocol):
    """How pieces of work are shared with others."""

    def each(
        self,
        pieces: Sequence[T],
        name: Callable[[T], str],
        done: Callable[[T], bool],
        do: Callable[[T], object],
    ) -> None:
        """Do those that this process is to do, one after another; all are dealt with at the end.

        Args:
            pieces: in the order in which one process alone would do them.
            name: what a piece is, the same text in every process.
            done: whether it needs nobody any more, e.g. since another process has stored it. Asked
                right before a piece is done, too, and never of one that this process did.
            do: does a piece, and lets a `StoreError` pass.
        """

    def check(self) -> None:
        """Raise `ClaimLost` where the piece that is being done has been taken over."""


class Alone:
    """Nobody else works on the store, or may do the same again."""

    def each(
        self,
        pieces: Sequence[T],
        name: Callable[[T], str],
        done: Callable[[T], bool],
        do: Callable[[T], object],
    ) -> None:
        """Do those that are not done."""
        for piece in pieces:
            if not done(piece):
                do(piece)

    def check(self) -> None:
        """Nobody takes anything over."""


@dataclass
class Shared:
    """One of several processes, wherever they run, that share a store."""

    store: Store
    number: int
    """From 0."""
    of: int
    """So many begin at different places; more or fewer may take part."""
    lease: float = LEASE
    tell: Callable[[str], object] = lambda text: None
    """Is told of what another process took over."""
    note: Callable[[str], object] = lambda text: None
    """Is told of what it waits for."""
    _claim: Claim | None = field(default=None, init=False)
    """On what is being done."""

    def each(
        self,
        pieces: Sequence[T],
        name: Callable[[T], str],
        done: Callable[[T], bool],
        do: Callable[[T], object],
    ) -> None:
        """Do those that no other process has; each is claimed while it is done."""
        start = len(pieces) * (self.number % self.of) // self.of
        left = [*pieces[start:], *pieces[:start]]
        waiting = False
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
                outer, self._claim = self._claim, claim
                try:
                    with claim.kept():
                        # It may have been finished between the two looks.
                        if not done(piece):
                            do(piece)
                except ClaimLost:
                    others.append(piece)
                    self.tell(
                        f"this process was not heard of for {self.lease:g} s, and another took over"
                        f" what it did, which is left to that one ({shortened(name(piece))})"
                    )
                finally:
                    self._claim = outer
            if len(others) == len(left):
                if not waiting:
                    of = f"{len(others)} of {len(pieces)} pieces of work"
                    self.note(f"waits for {of}, which other workers have claimed")
                waiting = True
                time.sleep(LOOKS)
            left = others

    def check(self) -> None:
        """Raise `ClaimLost` where the piece that is being done has been taken over."""
        if self._claim is not None and self._claim.lost:
            raise ClaimLost(f"another process took over what this one claimed in {self.store.root}")
