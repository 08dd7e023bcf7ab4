"""Runs a plugin's code so that what it raises, prints or changes does not reach the rest."""

from __future__ import annotations

import contextlib
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from mbench.core.debugger import debugging, look_at
from mbench.core.errors import MbenchError, PluginError
from mbench.core.process_state import put_back, snapshot

MBENCH = Path(__file__).parents[1]


@contextlib.contextmanager
def plugin_code(what: str, *, loading: bool = False) -> Iterator[None]:
    """Run a block of a plugin's code; `what` names it in errors, e.g. `scorer 'reap'`.

    Text that it prints goes to standard error, where it cannot break `--json`. Settings and random
    states of the whole process that it changes are put back. While it is `loading`, a changed
    state is no error: modules may seed generators that nobody draws from afterwards.

    Raises `PluginError`, one line with the plugin's own file and line, for anything that it raises,
    `SystemExit` included, and for global states that it changed or drew from. Errors of mbench
    that it raises on purpose, e.g. `UnsupportedModel`, pass through, as Ctrl-C does.
    """
    before = snapshot()
    failed = False
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except MbenchError:
        failed = True
        raise
    except KeyboardInterrupt:
        failed = True
        raise
    # A plugin may raise anything, and must not end the run.
    except BaseException as error:
        failed = True
        if debugging() and (traceback_of_plugin := _until_plugin(error.__traceback__)):
            look_at(error, what or "a plugin", traceback_of_plugin)
        raise PluginError(f"{what} {describe(error)}") from error
    finally:
        problem = put_back(before)
        if problem and not failed and not loading:
            raise PluginError(f"{what} {problem}")


def describe(error: BaseException) -> str:
    """What a plugin's code raised and where, in one line: `raised KeyError: 'counts' (a.py:14)`."""
    try:
        text = (str(error).strip().splitlines() or [""])[0]
    except Exception:
        text = "(its text cannot be shown)"
    name = type(error).__name__
    place = place_of(error)
    return f"raised {name}" + (f": {text}" if text else "") + (f" ({place})" if place else "")


def place_of(error: BaseException) -> str:
    """`file:line` of the innermost frame that lies neither in mbench nor in a library; or empty."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    for frame in reversed(frames):
        if _is_of_plugin(frame.filename):
            return f"{frame.filename}:{frame.lineno}"
    return ""


def _is_of_plugin(filename: str) -> bool:
    """Whether a file lies neither in mbench nor in a library."""
    path = Path(filename)
    library = "site-packages" in path.parts or path.is_relative_to(sys.base_prefix)
    return path.suffix == ".py" and not library and not path.is_relative_to(MBENCH)


def _until_plugin(whole: TracebackType | None) -> TracebackType | None:
    """A traceback that ends in the innermost frame of a plugin; None without such a frame."""
    frames = []
    while whole is not None:
        frames.append(whole)
        whole = whole.tb_next
    end: TracebackType | None = None
    for each in reversed(frames):
        if end is not None or _is_of_plugin(each.tb_frame.f_code.co_filename):
            end = TracebackType(end, each.tb_frame, each.tb_lasti, each.tb_lineno)
    return end


@contextlib.contextmanager
def located(function: Callable[..., Any]) -> Iterator[None]:
    """Add where a plugin's function is defined to a `PluginError` that names no place yet."""
    try:
        yield
    except PluginError as error:
        code = getattr(function, "__code__", None)
        if code is None or re.search(r"\.py:\d+\)$", str(error)):
            raise
        if Path(code.co_filename).is_relative_to(MBENCH):
            raise  # the function is mbench's own: its place would not help the plugin's author
        place = f"{code.co_filename}:{code.co_firstlineno}"
        raise PluginError(f"{error} ({place})") from error
