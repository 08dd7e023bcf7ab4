"""Child processes of mbench end when it does, however it ends."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import threading
from typing import TextIO

_PR_SET_PDEATHSIG = 1
_SIGKILL = 9


def end_with_parent(stream: TextIO) -> None:
    """End this process when its parent ends; `stream` is a pipe that only the parent holds open.

    The pipe serves everywhere; on Linux the system watches, too, even where the pipe got copied.
    """
    end_with_parent_on_linux()
    threading.Thread(target=_wait_for_end, args=(stream,), daemon=True).start()


def end_with_parent_on_linux() -> None:
    """Have the system end this process with the thread that started it; elsewhere do nothing."""
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, _SIGKILL)


def _wait_for_end(stream: TextIO) -> None:
    with contextlib.suppress(OSError, ValueError):
        stream.read()
    os._exit(128 + signal.SIGTERM)
