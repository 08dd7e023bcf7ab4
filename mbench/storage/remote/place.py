"""Where an artefact is in a store that fsspec reaches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TypeVar

from mbench.storage.place import RemotePlace
from mbench.storage.remote.connection import Connection
from mbench.storage.remote.read_cache import ReadCache

T = TypeVar("T")


@dataclass(frozen=True)
class ObjectPlace(RemotePlace):
    """A path of a connection."""

    connection: Connection = field(repr=False, compare=False)
    cache: ReadCache = field(repr=False, compare=False)
    path: str

    @property
    def name(self) -> str:
        """Its last part."""
        return self.path.rpartition("/")[2]

    def __truediv__(self, name: str) -> ObjectPlace:
        """Something within the folder."""
        return ObjectPlace(self.connection, self.cache, f"{self.path}/{name}")

    def __str__(self) -> str:
        """The URL."""
        return self.connection.url_of(self.path)

    def read(self) -> bytes:
        """The content of a file."""
        return self.connection.read(self.path)

    def member(self, name: str, sha256: str) -> ObjectPlace:
        """A file of the folder, by its name and content."""
        return self / member_name(name, sha256)

    def sizes(self) -> Mapping[str, int]:
        """Bytes of the files within the folder, by name."""
        start = len(self.path) + 1
        return {path[start:]: f.size for path, f in self.connection.files(self.path).items()}

    def with_copy(self, sha256: str, read: Callable[[Path], T]) -> T:
        """What `read` makes of a verified copy of the file on this machine; raises `Damaged`."""
        return self.cache.with_file(
            sha256, lambda file: self.connection.fetch(self.path, file), read
        )


def member_name(name: str, sha256: str) -> str:
    """How a file of a folder is named elsewhere, where no folder appears at once.

    Two writers may send the same folder at the same time, and their contents may differ in the
    last digits: named by content, none overwrites a file of the other.
    """
    file = PurePosixPath(name)
    return f"{file.stem}.{sha256[:16]}{file.suffix}"
