"""A store in a folder, on a local disk or one that machines share over NFS.

Of the file system it needs what POSIX and NFS promise: files made exclusively (`O_EXCL`), links and
renames that happen at once. Nothing is locked. What has a name is on the disk.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from mbench.core.errors import StoreError
from mbench.storage.atomic import (
    AlreadyThere,
    new_folder,
    remove,
    sweep,
    take_name,
    temporary_folder,
    write_atomically,
    write_new,
)
from mbench.storage.claims import CLAIMS, Claims, FileClaims
from mbench.storage.place import Entry


class LocalFolder:
    """See `mbench.storage.backend.Backend`."""

    def __init__(self, root: Path) -> None:
        """Nothing is read or made yet."""
        self.root = root
        self.writable = False
        self.claims: Claims = FileClaims(root / CLAIMS)

    def exists(self) -> bool:
        """Whether there is such a folder."""
        return self.root.is_dir()

    def open(self, folders: Sequence[str]) -> None:
        """Make it if it is absent, and raise `StoreError` where a folder cannot be read."""
        root = self.root
        if not os.path.isdir(root):
            try:
                root.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                why = "it is no folder" if isinstance(error, FileExistsError) else error.strerror
                raise StoreError(f"cannot use the store {root}: {why}") from None
        there = [each for each in (root, *map(root.joinpath, folders)) if os.path.isdir(each)]
        for folder in there:
            if not os.access(folder, os.R_OK | os.X_OK):
                raise StoreError(f"cannot use the store {root}: {folder} cannot be read")
        self.writable = all(os.access(folder, os.W_OK) for folder in there)

    def misplaced(self, folders: Sequence[str]) -> list[str]:
        """Of these, what is there and no folder."""
        paths = {name: self.root / name for name in folders}
        return [n for n, path in paths.items() if os.path.lexists(path) and not path.is_dir()]

    def place(self, name: str) -> Path:
        """Its path."""
        return self.root / name

    def has_file(self, name: str) -> bool:
        """Whether there is such a file."""
        return os.path.isfile(self.root / name)

    def write(self, name: str, content: bytes) -> None:
        """Write a file, whole, over whatever is there."""
        write_atomically(self.root / name, lambda path: path.write_bytes(content))

    def write_new(self, name: str, content: bytes) -> None:
        """Write a file where there is none; else raises `AlreadyThere`."""
        write_new(self.root / name, content)

    def new_folder(self, name: str) -> AbstractContextManager[Path]:
        """A folder that gets its name at the end; raises `AlreadyThere`."""
        return new_folder(self.root / name)

    def scratch_folder(self, name: str) -> Path:
        """A folder on the same disk."""
        return temporary_folder(self.root / name)

    def remove(self, name: str) -> None:
        """Remove a file or folder, so that others see all of it or nothing."""
        remove(self.root / name)

    def move(self, name: str, to: str) -> None:
        """Give a file or folder another name; raises `OSError`."""
        path, moved = self.root / name, self.root / to
        if os.path.lexists(path):
            moved.parent.mkdir(parents=True, exist_ok=True)
        path.rename(moved)

    def put_back(self, moved: str, name: str) -> None:
        """Give what was moved its name again, unless something has it by now."""
        source, path = self.root / moved, self.root / name
        try:
            if source.is_dir():
                source.rename(path)
            else:
                take_name(source, path)
        except (OSError, AlreadyThere):
            remove(source)

    def overwrite(self, name: str) -> bool:
        """What cannot be moved cannot be replaced either."""
        return False

    def entries(self, folder: str) -> list[Entry]:
        """Every file and folder within a folder, by name; none where it is absent."""
        path = self.root / folder
        if not path.is_dir():
            return []
        return [Entry(each.name, each, *_measure(each)) for each in sorted(path.iterdir())]

    def sweep(self, folders: Sequence[str]) -> None:
        """Remove what killed processes left unfinished."""
        for folder in folders:
            sweep(self.root / folder)
        FileClaims(self.root / CLAIMS).sweep()


def _measure(path: Path) -> tuple[int, float]:
    """Bytes of a file or folder, and when it was written; zeros where it is gone by now."""
    with contextlib.suppress(OSError):
        status = path.lstat()
        if not path.is_dir() or path.is_symlink():
            return status.st_size, status.st_mtime
        with os.scandir(path) as entries:
            size = sum(entry.stat(follow_symlinks=False).st_size for entry in entries)
        return size, status.st_mtime
    return 0, 0.0
