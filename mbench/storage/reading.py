"""A store for those who only look: they make none where there is none."""

from __future__ import annotations

import os
import weakref
from pathlib import Path

from mbench.storage.atomic import discard, scratch_folder
from mbench.storage.local_folder import LocalFolder
from mbench.storage.location import backend_of
from mbench.storage.store import ENVIRONMENT_VARIABLE, Store, default_root


def store_to_read(root: Path | str | None = None) -> Store:
    """The store at `root`, else the user's; where no folder is, an empty one that goes with the
    `Store`.

    A plan in the wrong folder, or with a mistyped name, leaves nothing behind. The user's cache is
    made, so that the next plan need not count again.
    """
    given = root or os.environ.get(ENVIRONMENT_VARIABLE)
    if not given:
        return Store(default_root())
    backend = backend_of(given)
    if not isinstance(backend, LocalFolder) or os.path.lexists(backend.root):
        return Store(given)
    folder = scratch_folder("no-store")
    store = Store(folder)
    weakref.finalize(store, discard, folder)
    return store
