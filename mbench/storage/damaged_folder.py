"""The folder of a store where damaged artefacts go, so that they are neither served nor lost."""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Callable
from pathlib import Path

from mbench.core.errors import Damaged
from mbench.storage.atomic import AlreadyThere, remove, take_name

NAME = "damaged"

_numbers = itertools.count()


class DamagedFolder:
    """Takes what is damaged, and reports each of it as one line."""

    def __init__(self, root: Path) -> None:
        """The folder belongs to the store `root`, and is made when it is needed."""
        self.root = root
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
        path: Path,
        what: str,
        damage: Damaged,
        read: Callable[[Path], object] | None = None,
    ) -> bool:
        """Move a damaged artefact here, and say so; returns whether to look again where it was.

        That is so where another run has moved it already, and maybe put a whole one in its place:
        what was moved is read once more, and goes back if it is whole.
        """
        try:
            moved = self._move(path)
        except FileNotFoundError:
            return True
        except OSError as error:
            self._say(what, damage, f" and cannot be moved: {error.strerror}")
            return False
        if read is not None:
            with contextlib.suppress(Damaged, FileNotFoundError):
                read(moved)
                _put_back(moved, path)
                return True
        self._say(what, damage, f": set aside as {moved.relative_to(self.root).as_posix()}")
        return False

    def _move(self, path: Path) -> Path:
        kind = path.relative_to(self.root).parts[0]
        number = f"{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}-{next(_numbers)}"
        moved = self.root / NAME / kind / f"{path.name}.{number}"
        if os.path.lexists(path):
            moved.parent.mkdir(parents=True, exist_ok=True)
        path.rename(moved)
        return moved

    def _say(self, what: str, damage: Damaged, end: str) -> None:
        text = f"the stored {what} is damaged ({damage}){end}"
        if text not in self._reported:
            self._reported.add(text)
            self._report(text)


def _put_back(moved: Path, path: Path) -> None:
    """Give a whole artefact its name again, unless there is another by now."""
    try:
        if moved.is_dir():
            moved.rename(path)
        else:
            take_name(moved, path)
    except (OSError, AlreadyThere):
        remove(moved)
