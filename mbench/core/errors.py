"""The errors that a user can meet, each printed as one line (with a traceback under `--debug`)."""

from __future__ import annotations

import contextlib
import difflib
import logging
from collections.abc import Iterable, Iterator

from mbench.core.clean_text import visible
from mbench.core.interruption import stop_if_asked

MOST_LISTED = 100
"""More valid choices than this are not listed in an error, e.g. the names of lm-eval's tasks."""

SOME_FAILED = 3
"""Exit status of a command that did what could be done, and names what could not."""

MOST_CHARACTERS = 300
"""Of another library's error that one line shows."""


class MbenchError(Exception):
    """Something the user can fix; its text is the one line they read."""


class SuiteError(MbenchError):
    """A suite file, or a command-line option that changes it, which cannot be used."""


class UnsupportedModel(MbenchError):
    """A model that cannot be profiled or pruned correctly; the text names it and says why."""


class ModelNotFound(MbenchError):
    """Weights, configuration or tokenizer that are neither on disk nor reachable."""


class CorpusError(MbenchError):
    """A corpus that is missing, unreachable, or shorter than the suite asks."""


class TaskError(MbenchError):
    """An evaluation task that is unknown or malformed, or whose outcomes are not finite."""


class ChatError(MbenchError):
    """A conversation that cannot be put into a model's chat template as the suite asks."""


class Infeasible(MbenchError):
    """A method that cannot meet a retain ratio, e.g. more protected experts than are kept."""


class PluginError(MbenchError):
    """A plugin that broke its contract: wrong shape, NaN, or another number of experts than K."""


class SearchLimit(MbenchError):
    """A search that asked for more forward passes than its `tokens` allow."""


class StoreError(MbenchError):
    """A store or output directory that cannot be read or written."""


class AdmissionError(MbenchError):
    """Inputs that would measure something else; its text has a line for each, not just one."""


class Damaged(MbenchError):
    """A file that is not, bit for bit, what was written; the text says how that shows."""


class MergeError(MbenchError):
    """Runs that cannot be merged; its text has a line for every difference, not just one."""


def shortened(text: str, most: int = 120) -> str:
    """The text, or its beginning where it is longer than a line should have."""
    return text if len(text) <= most else f"{text[:most]}…"


def printable(text: str) -> str:
    """The text on one line, with whatever a terminal would obey written as an escape."""
    return visible(text).replace("\n", "\\n").replace("\t", "\\t")


def shown(value: object) -> str:
    """A value as an error quotes it: as Python writes it, without what makes it unreadably long."""
    return shortened(repr(value[:200] if isinstance(value, str) else value))


def unknown(what: str, name: str, choices: Iterable[str]) -> str:
    """One line that says `name` is no `what`, with the nearest match and the valid choices.

    Of more than `MOST_LISTED` choices it names only those that are like `name`.
    """
    name, valid = shortened(name), sorted(choices)
    few = len(valid) <= MOST_LISTED
    hint = did_you_mean(name, valid, most=1 if few else 4)
    listed = f" (valid: {', '.join(valid) or 'none'})" if few else ""
    return f"unknown {what} {name!r}{hint}{listed}"


def did_you_mean(name: str, choices: Iterable[str], *, most: int = 1) -> str:
    """What a message about a mistyped name goes on with; empty if no choice is like it."""
    near = difflib.get_close_matches(shortened(name), list(choices), n=most)
    return f"; did you mean {' or '.join(map(repr, near))}?" if near else ""


def nearest(name: str, choices: Iterable[str]) -> str | None:
    """The choice that is most like a mistyped name, if one is like it at all."""
    return next(iter(difflib.get_close_matches(shortened(name), list(choices), n=1)), None)


_log = logging.getLogger("mbench")


@contextlib.contextmanager
def tracebacks_shown() -> Iterator[None]:
    """Print the tracebacks of errors that go through `caught` to standard error (`--debug`)."""
    handler, level = logging.StreamHandler(), _log.level
    _log.addHandler(handler)
    _log.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        _log.removeHandler(handler)
        _log.setLevel(level)


def caught(error: BaseException) -> str:
    """`one_line` of an error that is not raised further; `--debug` shows its traceback.

    After a signal it raises `Interrupted`: what failed then is not believed to be broken.
    """
    stop_if_asked()
    _log.debug("%s", one_line(error), exc_info=error)
    return one_line(error)


def one_line(error: BaseException) -> str:
    """The first line of an error's text, after the error's type unless it is an `MbenchError`."""
    text = (str(error).strip().splitlines() or [""])[0]
    if isinstance(error, MbenchError):
        return text
    return ": ".join(filter(None, (type(error).__name__, text[:MOST_CHARACTERS])))
