"""Copies on this machine of files that a run reads many times from a store elsewhere."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from mbench.storage.atomic import sweep, unfinished

MOST_BYTES = 100 * 10**9
"""That copies take together, and at most half of what is free on the disk without them."""


def cache_folder() -> Path:
    """Where copies are, below the user's cache (`XDG_CACHE_HOME`)."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("mbench")) / "fetched"


class ReadCache:
    """Files named by the sha256 of their content; those used least recently go first.

    Whoever reads a copy verifies it: what is damaged is removed and fetched again.
    """

    def __init__(self, folder: Path, most: int = MOST_BYTES) -> None:
        """The folder is made when the first copy is."""
        self.folder = folder
        self._most = most

    def file(self, sha256: str, fetch: Callable[[Path], object]) -> Path:
        """The copy with this content, which `fetch` makes at a path where there is none."""
        path = self.folder / sha256
        try:
            os.utime(path)
        except FileNotFoundError:
            with unfinished(path, lambda temporary: None) as temporary:
                fetch(temporary)
                self._make_room(temporary.stat().st_size)
                temporary.replace(path)
        return path

    def adopt(self, file: Path, sha256: str) -> None:
        """Take a file that has been sent, as the run that made it reads it soon."""
        with contextlib.suppress(OSError):
            self._make_room(0)
            file.replace(self.folder / sha256)

    def drop(self, sha256: str) -> None:
        """Forget a copy."""
        with contextlib.suppress(OSError):
            (self.folder / sha256).unlink()

    def _make_room(self, size: int) -> None:
        """Remove copies until one of `size` bytes, on this disk already, fits beside the others."""
        sweep(self.folder)
        copies = []
        for path in self.folder.iterdir():
            with contextlib.suppress(OSError):
                if not path.name.startswith("."):
                    copies.append((path.stat().st_mtime, path.stat().st_size, path))
        total = size + sum(size for _, size, _ in copies)
        most = min(self._most, (shutil.disk_usage(self.folder).free + total) // 2)
        for _, taken, path in sorted(copies):
            if total <= most:
                return
            with contextlib.suppress(OSError):
                path.unlink()
            total -= taken
