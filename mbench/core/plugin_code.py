"""Runs a plugin's code so that what it raises, prints or changes does not reach the rest."""

from __future__ import annotations

import contextlib
import random
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mbench.core.errors import MbenchError, PluginError

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
    before = {name: state() for name, (state, _, _) in _process_states().items()}
    failed = False
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except MbenchError:
        failed = True
        raise
    # A plugin may raise anything, and must not end the run.
    except (Exception, SystemExit) as error:
        failed = True
        raise PluginError(f"{what} {describe(error)}") from error
    finally:
        problem = _put_back(before)
        if problem and not failed and not loading:
            raise PluginError(f"{what} {problem}")


def describe(error: BaseException) -> str:
    """What a plugin's code raised and where, in one line: `raised KeyError: 'counts' (a.py:14)`."""
    text = (str(error).strip().splitlines() or [""])[0]
    name = type(error).__name__
    place = place_of(error)
    return f"raised {name}" + (f": {text}" if text else "") + (f" ({place})" if place else "")


def place_of(error: BaseException) -> str:
    """`file:line` of the innermost frame that lies neither in mbench nor in a library; or empty."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    for frame in reversed(frames):
        path = Path(frame.filename)
        library = "site-packages" in path.parts or path.is_relative_to(sys.base_prefix)
        if path.suffix == ".py" and not library and not path.is_relative_to(MBENCH):
            return f"{frame.filename}:{frame.lineno}"
    return ""


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


_DRAWS = "draws from {}, which all methods share: draw from the generator that it is given"
_SETS = "changed {}, which all methods share"

_State = tuple[Callable[[], Any], Callable[[Any], None], str]
"""How a state of the process is read and put back, and what the error says of a change."""


def _process_states() -> dict[str, _State]:
    """What a plugin could change for everybody; torch's only where it is loaded."""
    states: dict[str, _State] = {
        "random": (random.getstate, random.setstate, _DRAWS.format("the global state of `random`")),
        "numpy": (_numpy_state, _set_numpy_state, _DRAWS.format("numpy's global random state")),
    }
    torch = sys.modules.get("torch")
    if torch is None:
        return states
    states["torch"] = (
        lambda: torch.get_rng_state().numpy().tobytes(),
        lambda state: torch.set_rng_state(torch.frombuffer(bytearray(state), dtype=torch.uint8)),
        _DRAWS.format("torch's global random state"),
    )
    if torch.cuda.is_initialized():
        states["torch on GPUs"] = (
            lambda: [state.numpy().tobytes() for state in torch.cuda.get_rng_state_all()],
            lambda kept: torch.cuda.set_rng_state_all(
                [torch.frombuffer(bytearray(state), dtype=torch.uint8) for state in kept]
            ),
            _DRAWS.format("torch's global random state on GPUs"),
        )
    settings = {
        "default dtype": (torch.get_default_dtype, torch.set_default_dtype),
        "number of threads": (torch.get_num_threads, torch.set_num_threads),
        "gradient mode": (torch.is_grad_enabled, torch.set_grad_enabled),
    }
    for name, (read, write) in settings.items():
        states[f"torch's {name}"] = (read, write, _SETS.format(f"torch's {name}"))
    return states


def _numpy_state() -> tuple[Any, ...]:
    """With its array as bytes, so that two states can be compared with `==`."""
    name, words, *rest = np.random.get_state(legacy=True)
    return (name, np.asarray(words).tobytes(), *rest)


def _set_numpy_state(state: tuple[Any, ...]) -> None:
    name, words, *rest = state
    np.random.set_state((name, np.frombuffer(words, dtype=np.uint32), *rest))


def _put_back(before: dict[str, Any]) -> str:
    """Put every changed state back; returns what the error says of the first, or an empty text.

    A state that came into being meanwhile, because the plugin imported torch, is not compared.
    """
    problem = ""
    for name, (read, write, text) in _process_states().items():
        if name in before and read() != before[name]:
            write(before[name])
            problem = problem or text
    return problem
