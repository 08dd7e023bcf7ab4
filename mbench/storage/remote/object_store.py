"""A store at a URL; folders of artefacts are there once their `meta.json` is, which comes last.

masks/KEY.json, evaluations/KEY.parquet, ...   as in a folder
statistics/KEY/sums.SHA.safetensors, ...       named by their content, too
statistics/KEY/meta.json                       created, so that of two writers the first is it
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

from mbench.core.errors import StoreError
from mbench.storage.atomic import ABANDONED, AlreadyThere, temporary_folder, unfinished
from mbench.storage.claims import CLAIMS, Claims
from mbench.storage.place import Entry
from mbench.storage.remote.claims import RemoteClaims
from mbench.storage.remote.connection import UNFINISHED, Connection, Listed
from mbench.storage.remote.place import ObjectPlace, member_name
from mbench.storage.remote.read_cache import ReadCache, cache_folder

META = "meta.json"


class ObjectStore:
    """See `mbench.storage.backend.Backend`."""

    def __init__(self, url: str) -> None:
        """Nothing is asked yet."""
        self._connection = Connection(url)
        self._cache = ReadCache(cache_folder())
        self.root = ObjectPlace(self._connection, self._cache, self._connection.path)
        self.claims: Claims = RemoteClaims(self._connection, self._path(CLAIMS))
        self._replaced: set[str] = set()

    def exists(self) -> bool:
        """Whether there is anything below the URL; raises `StoreError` where it has no bucket."""
        found = self._connection.exists(self._connection.path)
        if not found and not self._connection.has_bucket():
            raise StoreError(f"cannot use the store {self.root}: there is no such bucket")
        return found

    def open(self, folders: Sequence[str]) -> None:
        """Raise `StoreError` where nothing can be read; what is absent is made when it is needed.

        A bucket is never made.
        """
        self.exists()

    @cached_property
    def writable(self) -> bool:
        """Whether anything can be stored, which is tried."""
        try:
            return self._connection.creates in (True, False)
        except StoreError as error:
            if isinstance(error.__cause__, PermissionError):
                return False
            raise

    def misplaced(self, folders: Sequence[str]) -> list[str]:
        """A file in the place of a folder hinders nobody."""
        return []

    def place(self, name: str) -> ObjectPlace:
        """Its place."""
        return self.root / name

    def has_file(self, name: str) -> bool:
        """Whether there is such a file."""
        return self._connection.exists(self._path(name))

    def write(self, name: str, content: bytes) -> None:
        """Write a file, whole, over whatever is there."""
        self._connection.write(self._path(name), content)

    def write_new(self, name: str, content: bytes) -> None:
        """Write a file where there is none; else raises `AlreadyThere`."""
        if name in self._replaced:
            self._replaced.discard(name)
            self._connection.write(self._path(name), content)
        else:
            self._connection.write_new(self._path(name), content)

    @contextlib.contextmanager
    def new_folder(self, name: str) -> Iterator[Path]:
        """A folder of this machine whose files are sent at the end; raises `AlreadyThere`."""
        with unfinished(self._cache.folder / Path(name).name, os.mkdir) as folder:
            yield folder
            # One that is there already is not sent again.
            if name not in self._replaced and self.has_file(f"{name}/{META}"):
                raise AlreadyThere(f"{self.root / name} exists already")
            meta = (folder / META).read_bytes()
            for member, said in json.loads(meta)["files"].items():
                sha256 = said["sha256"]
                path = self._path(f"{name}/{member_name(member, sha256)}")
                self._connection.send(folder / member, path)
                self._cache.adopt(folder / member, sha256)
            if name in self._replaced:
                self._replaced.discard(name)
                self._connection.write(self._path(f"{name}/{META}"), meta)
            else:
                self._connection.write_new(self._path(f"{name}/{META}"), meta)

    def scratch_folder(self, name: str) -> Path:
        """A folder on the disk that copies are kept on."""
        return temporary_folder(self._cache.folder / Path(name).name)

    def remove(self, name: str) -> None:
        """Remove a file or folder."""
        for path in self._parts(name):
            self._connection.remove(path)

    def move(self, name: str, to: str) -> None:
        """Copy a file or folder to another name, and remove it; raises `FileNotFoundError`."""
        parts = self._parts(name)
        if not parts:
            raise FileNotFoundError(str(self.root / name))
        for path in parts:
            self._connection.copy(path, self._path(to) + path.removeprefix(self._path(name)))
        for path in parts:
            self._connection.remove(path)

    def put_back(self, moved: str, name: str) -> None:
        """Give what was moved its name again, unless something has it by now."""
        parts = self._parts(moved)
        for path in reversed(parts):
            back = self._path(name) + path.removeprefix(self._path(moved))
            if path is parts[0]:
                with contextlib.suppress(AlreadyThere):
                    self._connection.write_new(back, self._connection.read(path))
            else:
                self._connection.copy(path, back)
        self.remove(moved)

    def overwrite(self, name: str) -> bool:
        """Have the next `write_new` or `new_folder` replace what cannot be moved."""
        self._replaced.add(name)
        return True

    def entries(self, folder: str) -> list[Entry]:
        """Every file and folder within a folder, by name; none where it is absent."""
        found: dict[str, list[Listed]] = {}
        metas = set()
        for name, listed in self._listing(folder).items():
            first, _, rest = name.partition("/")
            found.setdefault(first, []).append(listed)
            if rest in ("", META):
                metas.add(first)
        return [
            Entry(
                first,
                self.root / folder / first,
                sum(each.size for each in files),
                max(each.written for each in files),
            )
            for first, files in sorted(found.items())
            if first in metas
        ]

    def sweep(self, folders: Sequence[str]) -> None:
        """Remove what was sent of folders and files that were never finished, and claims of who
        ended with all work done, a week after."""
        for folder in (*folders, UNFINISHED, CLAIMS):
            listing = self._listing(folder)
            for name, listed in listing.items():
                first, _, rest = name.partition("/")
                lacking = rest and f"{first}/{META}" not in listing
                partial = folder in (UNFINISHED, CLAIMS) or lacking
                if partial and time.time() - listed.written > ABANDONED:
                    self._connection.discard(self._path(f"{folder}/{name}"))
        with contextlib.suppress(StoreError):  # who may write need not be allowed to ask for them
            ours = tuple(self._path(f"{folder}/") for folder in (*folders, UNFINISHED))
            for upload in self._connection.unfinished_uploads(self._path("")):
                if upload.path.startswith(ours) and time.time() - upload.begun > ABANDONED:
                    self._connection.end_upload(upload)

    def _listing(self, folder: str) -> dict[str, Listed]:
        """Every file below a folder, by its name within it."""
        start = self._path(folder) + "/"
        files = self._connection.files(self._path(folder))
        return {path.removeprefix(start): of for path, of in files.items() if path != start[:-1]}

    def _path(self, name: str) -> str:
        return f"{self._connection.path}/{name}"

    def _parts(self, name: str) -> list[str]:
        """The files of an artefact, the one without which the others are nothing first."""
        paths = list(self._connection.files(self._path(name)))
        return sorted(paths, key=lambda path: (path.rpartition("/")[2] != META, path))
