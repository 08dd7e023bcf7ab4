"""One place that fsspec reaches: what is read, written whole, listed and removed there.

Nothing is there half-written: object storage shows an object once all of it has arrived, also one
that is sent in parts; elsewhere it is written under another name, measured, and renamed.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import platform
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mbench.core.errors import StoreError, shortened
from mbench.storage.atomic import AlreadyThere

ATOMIC = frozenset(("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "oci", "oss", "memory"))
"""Protocols under which a name stands for the whole of what was written, or for what was before."""

PACKAGES = {"s3": "mbench[s3]", "s3a": "mbench[s3]", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs"}
"""What has to be installed for a protocol; of others, fsspec says it."""

_TIMES = ("LastModified", "last_modified", "mtime", "updated", "created")
"""What backends call the time at which something was written."""

UNFINISHED = "unfinished"
"""The folder of what exists for a moment only."""

_numbers = itertools.count()


@dataclass(frozen=True)
class Listed:
    """A file as a listing has it."""

    size: int
    """Bytes."""
    written: float
    """Seconds since the epoch, by the clock of the place; 0 where it does not say."""


@dataclass(frozen=True)
class Upload:
    """A file that is being sent in parts, or was until its sender ended."""

    path: str
    id: str
    begun: float
    """Seconds since the epoch, by the clock of the place."""


class Connection:
    """All below one URL; paths are those of the URL, without its protocol.

    Raises `FileNotFoundError` where nothing has the name, and `StoreError`, one line, for all else.
    """

    def __init__(self, url: str) -> None:
        """Nothing is asked yet; raises `StoreError` for a protocol that cannot be used here."""
        from fsspec.core import url_to_fs

        self.url = url.rstrip("/")
        self.protocol = url.partition("://")[0]
        try:
            # Others write, too: what was listed once may be wrong by now.
            system, path = url_to_fs(self.url, use_listings_cache=False)
        except ImportError as error:
            package = PACKAGES.get(self.protocol)
            hint = f"pip install '{package}'" if package else str(error)
            raise StoreError(f"the store {url} cannot be reached: {hint}") from None
        except Exception as error:
            raise StoreError(f"the store {url} cannot be used: {_reason(error)}") from None
        self._system: Any = system
        # In parts, s3fs would ask for the size of each file first.
        self._at_once = {"max_concurrency": 1} if self.protocol in ("s3", "s3a") else {}
        self.path = str(path)

    def url_of(self, path: str) -> str:
        """A path as users write it."""
        return self.url + path.removeprefix(self.path)

    def read(self, path: str) -> bytes:
        """All of a file."""
        with self._told("read", path):
            return bytes(self._system.cat_file(path, **self._at_once))

    def fetch(self, path: str, file: Path) -> None:
        """Copy a file to this machine."""
        with self._told("read", path):
            self._system.get_file(path, str(file))

    def write(self, path: str, content: bytes) -> None:
        """Write a file, whole, over whatever is there."""
        with self._told("write", path, missing="its bucket or folder is gone"):
            if self.protocol in ATOMIC:
                self._system.pipe_file(path, content)
            else:
                self._moved_there(path, lambda name: self._system.pipe_file(name, content))

    def send(self, file: Path, path: str) -> None:
        """Copy a file of this machine there, whole, over whatever is there."""
        with self._told("write", path, missing="its bucket or folder is gone"):
            if self.protocol in ATOMIC:
                self._system.put_file(str(file), path)
            else:
                self._moved_there(path, lambda name: self._system.put_file(str(file), name))
        if (there := self.size(path)) != file.stat().st_size:
            raise StoreError(f"cannot write {self.url_of(path)}: {there} bytes arrived")

    def write_new(self, path: str, content: bytes) -> None:
        """Write a file where there is none; raises `AlreadyThere` where there is one by then.

        Where the place cannot be asked to refuse, whoever of two is last may win: both are whole.
        """
        try:
            with self._told("write", path, missing="its bucket or folder is gone"):
                if self.creates:
                    self._system.pipe_file(path, content, mode="create")
                    return
                if self._system.exists(path):
                    raise FileExistsError
        except FileExistsError:
            raise AlreadyThere(f"{self.url_of(path)} exists already") from None
        self.write(path, content)

    @cached_property
    def creates(self) -> bool:
        """Whether the place refuses to create what is there, when asked; it is tried once.

        Raises `StoreError` where it cannot be written.
        """
        path = self.own_name(".probe")
        with self._told("write", path, missing="there is no such bucket or folder"):
            try:
                self._system.pipe_file(path, b"1", mode="create")
                self._system.pipe_file(path, b"2", mode="create")
            except FileExistsError:
                return True
            except (ValueError, TypeError, NotImplementedError):
                return False
            except OSError as error:
                if error.errno != errno.ENOSYS:
                    raise
                return False  # the server knows no such condition, and says so
            finally:
                self.discard(path)
        return False

    def size(self, path: str) -> int:
        """Bytes of a file."""
        with self._told("read", path):
            return int(self._system.info(path)["size"])

    def written(self, path: str) -> float:
        """When a file was written, by the clock of the place."""
        with self._told("read", path):
            return float(self._system.modified(path).timestamp())

    def exists(self, path: str) -> bool:
        """Whether there is a file, or anything below a folder."""
        with self._told("read", path):
            return bool(self._system.exists(path))

    def has_bucket(self) -> bool:
        """Whether there is the bucket, which is never made; True where that may not be asked."""
        bucket = self.path.partition("/")[0]
        if self.protocol not in ATOMIC or not bucket:
            return True
        with contextlib.suppress(PermissionError):
            try:
                self._system.info(bucket)
            except FileNotFoundError:
                return False
        return True

    def files(self, path: str) -> dict[str, Listed]:
        """Every file below a folder, by path; none where there is no such folder."""
        with self._told("list", path):
            try:
                found = self._system.find(path, detail=True)
            except FileNotFoundError:
                return {}
        return {name: Listed(int(i.get("size") or 0), _moment(i)) for name, i in found.items()}

    def copy(self, path: str, to: str) -> None:
        """Copy a file within the place."""
        with self._told("write", to):
            self._system.cp_file(path, to)

    def remove(self, path: str) -> None:
        """Remove a file; nothing happens where there is none."""
        with self._told("remove", path), contextlib.suppress(FileNotFoundError):
            self._system.rm_file(path)

    def discard(self, path: str) -> None:
        """Remove a file if that is possible."""
        with contextlib.suppress(StoreError):
            self.remove(path)

    def unfinished_uploads(self, path: str) -> list[Upload]:
        """Files below a folder of which only parts were sent by now, at most 1,000; S3 keeps them
        until they are ended, other places do not say or end them themselves."""
        if self.protocol not in ("s3", "s3a"):
            return []
        bucket, _, prefix = path.partition("/")
        with self._told("list", path):
            listed = self._system.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=prefix)
        return [
            Upload(f"{bucket}/{each['Key']}", each["UploadId"], each["Initiated"].timestamp())
            for each in listed.get("Uploads", [])
        ]

    def end_upload(self, upload: Upload) -> None:
        """Have what was sent of a file removed, if that is possible."""
        bucket, _, key = upload.path.partition("/")
        with contextlib.suppress(StoreError), self._told("remove", upload.path):
            self._system.call_s3(
                "abort_multipart_upload", Bucket=bucket, Key=key, UploadId=upload.id
            )

    def own_name(self, suffix: str) -> str:
        """A path that nobody else uses, and no artefact has."""
        host = re.sub(r"[^\w-]", "-", platform.node())
        return f"{self.path}/{UNFINISHED}/{host}.{os.getpid()}.{next(_numbers)}{suffix}"

    def _moved_there(self, path: str, write: Any) -> None:
        name = self.own_name(".partial")
        for each in (name, path):
            self._system.makedirs(each.rpartition("/")[0], exist_ok=True)
        try:
            write(name)
            self._system.mv(name, path)
        finally:
            if self._system.exists(name):
                self._system.rm_file(name)

    @contextlib.contextmanager
    def _told(self, what: str, path: str, missing: str = "") -> Iterator[None]:
        """Errors of the backend as one line, except that a name is taken or stands for nothing."""
        try:
            yield
        except (StoreError, FileExistsError):
            raise
        except FileNotFoundError:
            if missing:
                raise StoreError(f"cannot {what} {self.url_of(path)}: {missing}") from None
            raise
        except Exception as error:  # each backend has errors of its own
            place = self.url_of(path)
            raise StoreError(f"cannot {what} {place}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    if isinstance(error, PermissionError):
        text = f"permission denied ({text})"
    return shortened(str(text).strip().splitlines()[0], 200)


def _moment(info: dict[str, Any]) -> float:
    for name in _TIMES:
        if info.get(name):
            moment = info[name]
            return float(moment.timestamp() if hasattr(moment, "timestamp") else moment)
    return 0.0
