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

    The pipe serves everywhere, and on Linux the system watches too, also while native code runs.
    """
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, _SIGKILL)
    threading.Thread(target=_wait_for_end, args=(stream,), daemon=True).start()


def _wait_for_end(stream: TextIO) -> None:
    with contextlib.suppress(OSError, ValueError):
        stream.read()
    os._exit(128 + signal.SIGTERM)
