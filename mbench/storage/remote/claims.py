"""Claims in a store elsewhere, which needs no more than to create what nobody else has created.

The claims on a piece of work are objects with ascending numbers. Its owner writes its own again
while it works. One that was not written for its lease is taken over by creating the next number,
which the place lets one of all that try do; it then removes the one before, by which the owner
learns of it, should it live. Ages are those that the clock of the place gives.
"""

from __future__ import annotations

import contextlib
import time

from mbench.core.errors import StoreError
from mbench.storage.atomic import AlreadyThere
from mbench.storage.claims import ATTEMPTS, LEASE, Claim, abandoned, claim_name, claim_text
from mbench.storage.remote.connection import Connection, Listed

TICK = 1.0
"""Seconds by which times of objects may be rounded."""

CLOCK = 60.0
"""Seconds after which the clock of the place is read again."""


class RemoteClaims:
    """See `mbench.storage.claims.Claims`."""

    def __init__(self, connection: Connection, folder: str) -> None:
        """Nothing is asked yet."""
        self._connection = connection
        self._folder = folder
        self._ahead = 0.0
        """Seconds by which the clock of the place is ahead of this process's."""
        self._read = -CLOCK

    def take(self, name: str, lease: float = LEASE) -> Claim | None:
        """See `Claims.take`; raises `StoreError` where the place cannot keep two from one claim."""
        connection = self._connection
        if not connection.creates:
            raise StoreError(
                f"{connection.url} cannot be shared by several processes: it writes over what is"
                " there, though asked to create it only (If-None-Match)"
            )
        stem, content = f"{self._folder}/{claim_name(name)}", claim_text(name, lease)
        for _ in range(ATTEMPTS):
            before = self._numbers(stem)
            if any(not self._given_up(_path(stem, each), of) for each, of in before.items()):
                return None
            number = max(before, default=0) + 1
            try:
                connection.write_new(_path(stem, number), content)
            except AlreadyThere:
                # It is this one where the first answer was lost, and the request was sent again.
                if not self._is(stem, number, content):
                    continue
            # Whoever was away between looking and creating may be beside another by now.
            if self._numbers(stem).keys() - before.keys() != {number}:
                connection.discard(_path(stem, number))
                continue
            for each in before:
                connection.discard(_path(stem, each))
            return RemoteClaim(self, stem, number, content, lease)
        return None

    def _numbers(self, stem: str) -> dict[int, Listed]:
        """The claims on a piece of work."""
        files = self._connection.files(self._folder)
        return {
            int(path.rpartition(".")[2]): listed
            for path, listed in files.items()
            if path.startswith(stem + ".")
        }

    def _given_up(self, path: str, listed: Listed) -> bool:
        try:
            content = self._connection.read(path)
        except FileNotFoundError:
            return True
        for anew in (False, True):  # after a sleep of this machine, its clocks say nothing
            if not abandoned(content, self._now(anew=anew) - listed.written - TICK):
                return False
        return True

    def _now(self, *, anew: bool = False) -> float:
        """The time as the place has it."""
        if anew or time.monotonic() - self._read > CLOCK:
            probe = self._connection.own_name(".clock")
            self._connection.write(probe, b"")
            self._read = time.monotonic()
            self._ahead = self._connection.written(probe) - self._read
            self._connection.discard(probe)
        return time.monotonic() + self._ahead

    def renew(self, stem: str, number: int, content: bytes) -> bool:
        """Write a claim again; False where another has taken it over."""
        if not self._is(stem, number, content):
            return False
        self._connection.write(_path(stem, number), content)
        return True

    def release(self, stem: str, number: int, content: bytes) -> None:
        """Remove a claim, unless another has taken it over."""
        with contextlib.suppress(StoreError):
            if self._is(stem, number, content):
                self._connection.remove(_path(stem, number))

    def _is(self, stem: str, number: int, content: bytes) -> bool:
        """Whether this claim still stands.

        Numbers begin anew once a piece of work is given back: the same one may be another's.
        """
        if max(self._numbers(stem), default=0) != number:
            return False
        try:
            return self._connection.read(_path(stem, number)) == content
        except FileNotFoundError:
            return False


class RemoteClaim(Claim):
    """A claim in a store elsewhere."""

    def __init__(
        self, claims: RemoteClaims, stem: str, number: int, content: bytes, lease: float
    ) -> None:
        """The object of this number has just been created with this content."""
        super().__init__(lease)
        self._claims = claims
        self._stem, self._number, self._content = stem, number, content

    def renew(self) -> bool:
        """Write it again; False where another has taken it over."""
        with contextlib.suppress(StoreError):  # out of reach for the moment
            self.lost = self.lost or not self._claims.renew(self._stem, self._number, self._content)
        return not self.lost

    def release(self) -> None:
        """Give it back."""
        self._claims.release(self._stem, self._number, self._content)


def _path(stem: str, number: int) -> str:
    return f"{stem}.{number:06d}"
