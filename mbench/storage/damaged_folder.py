"""The folder of a store where damaged artefacts go, so that they are neither served nor lost."""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Callable
from typing import Literal, TypeAlias

from mbench.core.errors import Damaged, StoreError
from mbench.storage.backend import Backend
from mbench.storage.place import Place

NAME = "damaged"

Taken: TypeAlias = Literal["moved", "stays", "look again"]
"""What became of something damaged: whether it was moved, or may be another thing by now."""

_numbers = itertools.count()


class DamagedFolder:
    """Takes what is damaged, and reports each of it as one line."""

    def __init__(self, backend: Backend) -> None:
        """The folder belongs to this store, and is made when it is needed."""
        self._backend = backend
        self._unheard: list[str] = []
        self._report: Callable[[str], None] = self._unheard.append
        self._reported: set[str] = set()

    def listen(self, report: Callable[[str], None]) -> None:
        """Report to somebody else from now on, who also gets what nobody has heard yet."""
        self._report = report
        for text in self._unheard:
            report(text)
        self._unheard.clear()

    def take(
        self,
        name: str,
        what: str,
        damage: Damaged,
        read: Callable[[Place], object] | None = None,
    ) -> Taken:
        """Move a damaged artefact here, and say so.

        Another run may have moved it already, and maybe put a whole one in its place: what was
        moved is read once more, and goes back if it is whole.
        """
        try:
            moved = self._move(name)
        except FileNotFoundError:
            return "look again"
        except (OSError, StoreError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            self._say(what, damage, f" and cannot be moved: {reason}")
            return "stays"
        if read is not None:
            with contextlib.suppress(Damaged, FileNotFoundError):
                read(self._backend.place(moved))
                self._backend.put_back(moved, name)
                return "look again"
        self._say(what, damage, f": set aside as {moved}")
        return "moved"

    def _move(self, name: str) -> str:
        number = f"{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}-{next(_numbers)}"
        kind, _, file = name.rpartition("/")
        moved = f"{NAME}/{kind or file}/{file}.{number}"
        self._backend.move(name, moved)
        return moved

    def _say(self, what: str, damage: Damaged, end: str) -> None:
        text = f"the stored {what} is damaged ({damage}){end}"
        if text not in self._reported:
            self._reported.add(text)
            self._report(text)
