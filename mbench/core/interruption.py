"""Ctrl-C, SIGTERM and SIGHUP end a command in the same way: what is finished is kept."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any

SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)

SAME = 1.0
"""Seconds within which a second signal is the same wish: clusters and terminals send several."""

AGAIN = 0.05
"""Seconds after which a signal that came too early is looked at again."""

WRITING = "the report is being written; once more to end without it\n"


class Interrupted(KeyboardInterrupt):
    """Somebody wants the process to end."""


@dataclass
class _State:
    received: int | None = None
    """The first signal."""
    last: float = -math.inf
    """When a signal came that was heeded."""
    finishing: bool = False
    """Whether what is left to do is short, so that one signal only gets an answer."""
    answered: bool = False
    told: bool = False
    """Whether it was said how to go on."""


_state = _State()


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """Raise `Interrupted` at a signal that the process does not ignore already, as `nohup` does."""
    global _state
    _state = _State()
    before: dict[int, Any] = {}
    hook = sys.unraisablehook
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        sys.unraisablehook = _without_interruptions(hook)
        for number, handler in before.items():
            if handler != signal.SIG_IGN:
                signal.signal(number, _handle)
        yield
    finally:
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def handlers_kept() -> Iterator[None]:
    """Put back what a library replaces in this block, in Python or below, of handlers in Python."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            if callable(handler) and threading.current_thread() is threading.main_thread():
                signal.signal(number, handler)


def _without_interruptions(hook: Callable[[Any], object]) -> Callable[[Any], None]:
    """Python prints what a destructor cannot raise; `stop_if_asked` raises it again instead."""

    def print_others(unraisable: Any) -> None:
        if not issubclass(unraisable.exc_type, Interrupted):
            hook(unraisable)

    return print_others


def _handle(number: int, frame: FrameType | None) -> None:
    if _importing_torch(frame):
        again = threading.Timer(AGAIN, os.kill, (os.getpid(), number))
        again.daemon = True
        again.start()
        return
    now = time.monotonic()
    if now - _state.last < SAME:
        return
    _state.last = now
    _state.received = _state.received or number
    if _state.finishing and not _state.answered:
        _state.answered = True
        # Not through a stream, which may be in use where the signal arrived.
        with contextlib.suppress(OSError):
            os.write(2, WRITING.encode())
        return
    raise Interrupted


def _importing_torch(frame: FrameType | None) -> bool:
    """Whether torch is being imported: what is raised in some of its C++ aborts the process."""
    while frame is not None:
        package = str(frame.f_globals.get("__name__")).partition(".")[0]
        if frame.f_code.co_name == "<module>" and package == "torch":
            return True
        frame = frame.f_back
    return False


@contextlib.contextmanager
def finishing() -> Iterator[None]:
    """In this block, a first signal only says that the report is being written."""
    _state.finishing = True
    try:
        yield
    finally:
        _state.finishing = False


def stop_if_asked() -> None:
    """Raise `Interrupted` if a signal came before and what it raised was lost.

    Code of C, and destructors, swallow it, and a library that it interrupts raises errors of its
    own, e.g. while it is imported.
    """
    if _state.received is not None and not _state.finishing:
        raise Interrupted


def first_telling() -> bool:
    """Whether nobody has asked this before, i.e. how to go on was not said yet."""
    told, _state.told = _state.told, True
    return not told


def exit_status() -> int:
    """Of a command that was interrupted, as shells have it: 128 and the signal's number."""
    return 128 + (_state.received or signal.SIGINT)


def interrupted() -> bool:
    """Whether a signal came."""
    return _state.received is not None
