"""The mistakes a user can make or meet, each printed as one line without a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class MbenchError(Exception):
    """Something the user can mend; its text is the one line they read."""


class SuiteError(MbenchError):
    """A suite file or a command-line redirection that cannot be carried out."""


class UnsupportedModel(MbenchError):
    """A model that cannot be profiled or pruned correctly; the text names it and says why."""


class ModelNotFound(MbenchError):
    """Weights, configuration or tokenizer that are neither on disk nor reachable."""


class CorpusError(MbenchError):
    """A corpus that is missing, unreachable, or shorter than the suite asks."""


class TaskError(MbenchError):
    """An evaluation task that is unknown, malformed, or gave responses that are not finite."""


class Infeasible(MbenchError):
    """A method that cannot meet a retain ratio, e.g. more protected experts than are kept."""


class PluginError(MbenchError):
    """A plugin that broke its contract: wrong shape, NaN, or not exactly K experts per layer."""


class StoreError(MbenchError):
    """A store or output directory that cannot be read or written."""


class MergeError(MbenchError):
    """Runs that cannot be one; unlike the others' text, this has a line for every difference."""


def unknown(what: str, name: str, choices: Iterable[str]) -> str:
    """One line that says `name` is no `what`, with the nearest match and all choices."""
    valid = sorted(choices)
    near = difflib.get_close_matches(name, valid, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    listed = ", ".join(valid) if valid else "none"
    return f"unknown {what} {name!r}{hint} (valid: {listed})"


def one_line(error: BaseException) -> str:
    """The first line of an error's text; one that is not the user's to mend keeps its type."""
    text = (str(error).strip().splitlines() or [""])[0]
    return text if isinstance(error, MbenchError) else f"{type(error).__name__}: {text}"
