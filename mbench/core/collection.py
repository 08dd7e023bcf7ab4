"""When Python looks for cycles of objects that nobody reaches any more."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def without_collection() -> Iterator[None]:
    """Do not look for them in a block, or in the calls of a function that this decorates.

    For short work that keeps almost all it makes: looking at that again and again took a tenth of
    the time of `mbench check`.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
