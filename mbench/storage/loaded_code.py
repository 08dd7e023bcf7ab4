"""Whether the code that a process runs is still that of its files.

A session of a notebook goes on while files are edited. What the old code computes must not be kept
under a key of the new.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any
from weakref import WeakKeyDictionary

from mbench.core.errors import PluginError

BEGUN = time.time()
"""Files that are older than this are as they were loaded."""

_seen: WeakKeyDictionary[ModuleType, tuple[Any, str]] = WeakKeyDictionary()
"""Module -> how it was loaded, and the hash of its file when its source was first asked for."""


def refuse_changed(module: ModuleType, path: Path, sha256: str) -> None:
    """Raise `PluginError` for a file that was edited after its module was loaded.

    `sha256` is that of the file. Of an edit before the first call only changed functions are
    noticed, not changed values.
    """
    spec, known = _seen.get(module, (None, ""))
    if spec is not module.__spec__ or not known:
        _seen[module] = (module.__spec__, sha256)
        changed = path.stat().st_mtime > BEGUN and not _is_as_loaded(module, path)
    else:
        changed = known != sha256
    if changed:
        raise PluginError(
            f"{path} was edited after it was loaded: importlib.reload its module and take its"
            " classes anew, or begin a new session"
        )


def _is_as_loaded(module: ModuleType, path: Path) -> bool:
    """Whether the file still has the code of each of the module's functions."""
    try:
        codes = set(_codes(compile(path.read_bytes(), str(path), "exec", dont_inherit=True)))
    except (SyntaxError, ValueError):
        return False
    own = (f.__code__ for f in _functions(vars(module), module.__name__))
    return all(code in codes for code in own if code.co_filename == str(path))


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _functions(names: Any, module: str) -> Iterator[FunctionType]:
    for value in list(names.values()):
        if isinstance(value, property):
            value = value.fget
        if isinstance(value, staticmethod | classmethod):
            value = value.__func__
        if isinstance(value, FunctionType):
            yield value
        elif isinstance(value, type) and value.__module__ == module:
            yield from _functions(vars(value), module)
