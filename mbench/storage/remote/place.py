"""Where an artefact is in a store that fsspec reaches."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from mbench.core.errors import Damaged
from mbench.storage.place import RemotePlace
from mbench.storage.remote.connection import Connection
from mbench.storage.remote.read_cache import ReadCache


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

    def read_cached(self, sha256: str) -> bytes:
        """The content of a file, which has this sha256, from a copy on this machine.

        Raises `Damaged` where what is there has another.
        """
        data = self._copied(sha256)
        if hashlib.sha256(data).hexdigest() != sha256:
            # Here or there: only what is there counts.
            self.cache.drop(sha256)
            data = self._copied(sha256)
        if hashlib.sha256(data).hexdigest() != sha256:
            self.cache.drop(sha256)
            raise Damaged("its checksum does not match")
        return data

    def _copied(self, sha256: str) -> bytes:
        file = self.cache.file(sha256, lambda file: self.connection.fetch(self.path, file))
        try:
            return file.read_bytes()
        except OSError:  # removed by another process to make room
            return self.read()


def member_name(name: str, sha256: str) -> str:
    """How a file of a folder is named elsewhere, where no folder appears at once.

    Two writers may send the same folder at the same time, and their contents may differ in the
    last digits: named by content, none overwrites a file of the other.
    """
    file = PurePosixPath(name)
    return f"{file.stem}.{sha256[:16]}{file.suffix}"
