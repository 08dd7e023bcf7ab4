"""`--pdb`: Python's debugger at the first error of each line of a plugin."""

from __future__ import annotations

import contextlib
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import TracebackType

from mbench.core.errors import MbenchError


@dataclass
class _State:
    on: bool = False
    seen: set[tuple[str, int]] = field(default_factory=set)
    """File and line of errors that were looked at: a scorer fails at every budget alike."""


_state = _State()


def debugging() -> bool:
    """Whether plugins' errors are to be looked at, for which a run stays in this process."""
    return _state.on


@contextlib.contextmanager
def debugger() -> Iterator[None]:
    """Stop at plugins' errors in this block; raises `MbenchError` where nobody could answer."""
    if not all(
        stream is not None and stream.isatty() for stream in (sys.__stdin__, sys.__stderr__)
    ):
        raise MbenchError("--pdb asks at a terminal, and there is none; --debug shows tracebacks")
    _state.on, _state.seen = True, set()
    try:
        yield
    finally:
        _state.on = False


def look_at(error: BaseException, what: str, until: TracebackType) -> None:
    """Let the user look around at the end of a traceback; `q` goes on as without the debugger."""
    last = until
    while last.tb_next is not None:
        last = last.tb_next
    import pdb  # takes longer than many a command

    place = last.tb_frame.f_code.co_filename, last.tb_lineno
    if place in _state.seen:
        return
    _state.seen.add(place)
    # Beside what the run prints: its own streams hide what terminals would obey.
    out = sys.__stderr__
    traceback.print_exception(error, file=out)
    print(f"{what} raised this; q goes on, h helps", file=out)
    debugger = pdb.Pdb(stdin=sys.__stdin__, stdout=out)
    debugger.reset()
    debugger.interaction(None, until)
