"""Does something at the n-th change below a folder: kills this process, or fails as a disk does."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_MOVES = {"os.rename", "os.link", "os.remove", "os.mkdir"}


@dataclass
class Changes:
    """The changes below a folder by now, and what happens from the n-th on."""

    root: str
    first: int
    act: Callable[[str], None]
    count: int = 0

    def notice(self, event: str, args: tuple) -> None:
        """Count an event of Python's audit if it is such a change."""
        if event == "open":
            changes = isinstance(args[2], int) and bool(args[2] & WRITING)
        else:
            changes = event in _MOVES
        if changes and isinstance(args[0], (str, Path)) and str(args[0]).startswith(self.root):
            self.count += 1
            if self.count >= self.first:
                self.act(event)


_watching: list[Changes] = []


def _hook(event: str, args: tuple) -> None:
    for changes in _watching:
        changes.notice(event, args)


@contextlib.contextmanager
def changes_below(root: Path, first: int, act: Callable[[str], None]) -> Iterator[Changes]:
    """Act before each change of the folder from the `first` on, 1 for the first one."""
    if not getattr(sys, "_disk_faults", False):
        sys.addaudithook(_hook)  # can never be removed again
        sys._disk_faults = True
    _watching.append(Changes(str(root), first, act))
    try:
        yield _watching[-1]
    finally:
        _watching.pop()


def die(event: str) -> None:
    """As a power cut or an out-of-memory killer ends a process."""
    os.kill(os.getpid(), signal.SIGKILL)


def disk_full(event: str) -> None:
    """Only removing still works."""
    if event == "os.remove":
        return
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def read_only(event: str) -> None:
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))
