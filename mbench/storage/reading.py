"""A store for those who only look: they make none where there is none."""

from __future__ import annotations

import os
import weakref
from pathlib import Path

from mbench.storage.atomic import discard, scratch_folder
from mbench.storage.local_folder import LocalFolder
from mbench.storage.location import backend_of
from mbench.storage.store import Store


def store_to_read(root: Path | str) -> Store:
    """The store at `root`; where no folder is, an empty one that goes with the `Store`.

    A plan in the wrong folder, or with a mistyped name, leaves nothing behind.
    """
    backend = backend_of(root)
    if not isinstance(backend, LocalFolder) or os.path.lexists(backend.root):
        return Store(root)
    folder = scratch_folder("no-store")
    store = Store(folder)
    weakref.finalize(store, discard, folder)
    return store
