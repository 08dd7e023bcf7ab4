"""Copies on this machine of files that a run reads many times from a store elsewhere."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from mbench.core.errors import Damaged, StoreError
from mbench.storage.atomic import sweep, unfinished
from mbench.storage.seal import check_file_sha256

T = TypeVar("T")

ATTEMPTS = 5
"""Times that a copy is fetched which other processes remove to make room."""

MOST_BYTES = 100 * 10**9
"""That copies take together, and at most half of what is free on the disk without them."""


def cache_folder() -> Path:
    """Where copies are, below the user's cache (`XDG_CACHE_HOME`)."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("mbench")) / "fetched"


class ReadCache:
    """Files named by the sha256 of their content; those used least recently go first.

    A copy is verified whenever it is read: one that is damaged is fetched again.
    """

    def __init__(self, folder: Path, most: int = MOST_BYTES) -> None:
        """The folder is made when the first copy is."""
        self.folder = folder
        self._most = most

    def with_file(
        self, sha256: str, fetch: Callable[[Path], object], read: Callable[[Path], T]
    ) -> T:
        """What `read` makes of the copy with this content, which `fetch` makes where it is absent.

        Raises `Damaged` where what is fetched has another content.
        """
        path = self.folder / sha256
        for _ in range(ATTEMPTS):
            fetched = not self._touch(path)
            if fetched:
                with unfinished(path, lambda temporary: None) as temporary:
                    fetch(temporary)
                    self._make_room(temporary.stat().st_size)
                    temporary.replace(path)
            try:
                check_file_sha256(path, sha256)
                return read(path)
            except Damaged:
                with contextlib.suppress(OSError):
                    path.unlink()
                if fetched:
                    raise
            except FileNotFoundError:  # another process made room
                continue
        raise StoreError(f"cannot read {path}: other processes remove it; is the disk full?")

    def _touch(self, path: Path) -> bool:
        try:
            os.utime(path)
        except FileNotFoundError:
            return False
        return True

    def adopt(self, file: Path, sha256: str) -> None:
        """Take a file that has been sent, as the run that made it reads it soon."""
        with contextlib.suppress(OSError):
            self._make_room(0)
            file.replace(self.folder / sha256)

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
