"""Claims on pieces of work in a store: who does one now, so that no other process does it, too.

A claim is a file of the store's folder `claims/`, made by one of all that try. Its owner touches it
while it works; one that was not touched for its lease belongs to nobody any more, since its process
or machine is gone, and may be taken over. Ages are read from the file system's own clock. Where
that is the clock of whoever touches a file, as on Lustre, a claim that is seen to be touched is not
taken over, so that the clocks of machines need not agree. On the owner's own machine a dead process
is seen at once.

A claim decides no figure. Were a piece of work done twice all the same, e.g. because a machine was
out of reach for longer than its lease, the first whole artefact stays.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import platform
import threading
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Protocol

from mbench.core.errors import StoreError
from mbench.storage.atomic import ABANDONED

CLAIMS = "claims"
"""The folder of a store that holds them."""

LEASE = 60.0
"""Seconds after which an untouched claim is nobody's."""

TOUCHES = 6
"""How often an owner touches its claim within a lease."""

MISSED = 3
"""Touches that a claim which looks too old must be seen to miss before it is taken over."""

ATTEMPTS = 5
"""Times that a claim is tried which others take over at the same time."""


class Claim(ABC):
    """A claim that this process has."""

    def __init__(self, lease: float) -> None:
        """Nobody has taken it over yet."""
        self.lost = False
        """Whether another has taken it over, because it was not touched in time."""
        self._lease = lease

    @abstractmethod
    def renew(self) -> bool:
        """Touch it; False where another has taken it over."""

    @abstractmethod
    def release(self) -> None:
        """Give it back."""

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Touch it in time until the block ends, then give it back."""
        ended = threading.Event()

        def touch() -> None:
            while not ended.wait(self._lease / TOUCHES):
                if not self.renew():
                    return

        thread = threading.Thread(target=touch, name="claim", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            self.release()


class Claims(Protocol):
    """The claims of one store."""

    def take(self, name: str, lease: float = LEASE) -> Claim | None:
        """Claim a piece of work; None where a living owner has it.

        `name` is any text that says what the work is, the same for all who might do it. Raises
        `StoreError` where the store cannot be written.
        """


class FileClaims:
    """The claims of one folder on a local disk, or on one that many machines share."""

    def __init__(self, folder: Path) -> None:
        """Made when the first claim is."""
        self._folder = folder
        self._seen: dict[Path, tuple[tuple[int, int], float]] = {}
        """Claims of others -> as they were when last seen, and since when."""

    def take(self, name: str, lease: float = LEASE) -> Claim | None:
        """See `Claims.take`."""
        path = self._folder / (claim_name(name) + ".claim")
        content = claim_text(name, lease)
        try:
            self._folder.mkdir(exist_ok=True)
            for _ in range(ATTEMPTS):
                with contextlib.suppress(FileExistsError):
                    # Exclusive on NFS, too, since its third version.
                    file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
                    try:
                        _write(file, content)
                    except OSError:
                        path.unlink()
                        os.close(file)
                        raise
                    return FileClaim(path, file, lease)
                if not self._give_up(path):
                    return None
        except OSError as error:
            raise StoreError(f"cannot claim work in {self._folder}: {error.strerror}") from error
        return None

    def sweep(self) -> None:
        """Remove what was not touched for a week, e.g. since its owner died with all work done."""
        with contextlib.suppress(OSError), os.scandir(self._folder) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):  # gone by now
                    if time.time() - entry.stat().st_mtime > ABANDONED:
                        os.unlink(entry)

    def _give_up(self, path: Path) -> bool:
        """Take an abandoned claim away; False where its owner lives."""
        try:
            with path.open("rb") as file:
                before, content = os.fstat(file.fileno()), file.read()
        except FileNotFoundError:
            return True
        if not abandoned(content, self._now() - before.st_mtime, self._unchanged(path, before)):
            return False
        away = self._own_name()
        try:
            path.rename(away)
        except FileNotFoundError:
            return True
        after = away.stat()
        # It may have been touched, or made anew, since it was looked at: then it is put back.
        if (after.st_ino, after.st_mtime_ns) != (before.st_ino, before.st_mtime_ns):
            with contextlib.suppress(OSError):
                os.link(away, path)
        away.unlink()
        return True

    def _unchanged(self, path: Path, status: os.stat_result) -> float:
        """Seconds since a claim was first seen as it is now, by this process's own clock."""
        as_it_is, now = (status.st_ino, status.st_mtime_ns), time.monotonic()
        before, since = self._seen.get(path, (as_it_is, now))
        self._seen[path] = as_it_is, since if before == as_it_is else now
        return now - self._seen[path][1]

    def _now(self) -> float:
        """The time as the file system has it."""
        probe = self._own_name()
        probe.touch()
        try:
            return probe.stat().st_mtime
        finally:
            probe.unlink()

    def _own_name(self) -> Path:
        """That nobody else uses, also in a container with the same name and numbers."""
        return self._folder / f".{uuid.uuid4().hex}"


class FileClaim(Claim):
    """A claim in a folder."""

    def __init__(self, path: Path, file: int, lease: float) -> None:
        """`file` is open: whatever has its name by now, its own file is what it touches."""
        super().__init__(lease)
        self._path = path
        self._file = file

    def renew(self) -> bool:
        """Touch it; False where another has taken it over."""
        try:
            os.utime(self._file)
            self.lost = self.lost or not os.path.samestat(os.fstat(self._file), os.stat(self._path))
        except FileNotFoundError:
            self.lost = True
        except OSError:  # out of reach for the moment
            return not self.lost
        return not self.lost

    def release(self) -> None:
        """Give it back."""
        if self.renew():
            with contextlib.suppress(OSError):
                self._path.unlink()
        os.close(self._file)


def _write(file: int, content: bytes) -> None:
    """All of it, so that other machines read it; raises `OSError`."""
    if os.write(file, content) < len(content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    os.fsync(file)


def claim_name(work: str) -> str:
    """What names the claim on a piece of work."""
    return hashlib.sha256(work.encode()).hexdigest()


def claim_text(work: str, lease: float) -> bytes:
    """What a claim says: on what, for how long untouched, and whose; no other says the same."""
    owner = {"host": platform.node(), "machine": _machine(), "process": os.getpid()}
    made = {"work": work, "lease": lease, "made": uuid.uuid4().hex}
    return json.dumps({**made, **owner}).encode()


def abandoned(content: bytes, age: float, unchanged: float = math.inf) -> bool:
    """Whether a claim's owner is gone; one that is being written has its lease, too.

    Args:
        content: of the claim.
        age: seconds since it was touched, as the clocks of others say.
        unchanged: seconds for which it was seen not to be touched.
    """
    lease, gone = LEASE, False
    with contextlib.suppress(ValueError, KeyError, TypeError):
        owner = json.loads(content)
        number, here = int(owner["process"]), owner["machine"] == _machine()
        lease, gone = float(owner["lease"]), here and not _runs(number)
    # One from the future was touched before a clock was set back, or by a clock that is ahead.
    old = not -LEASE <= age <= lease
    return gone or (old and unchanged >= MISSED * lease / TOUCHES)


@cache
def _machine() -> str:
    """Where process numbers mean the same: equal within one boot and one container."""
    parts = [platform.node()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(str(os.stat("/proc/self/ns/pid").st_ino))
    # Elsewhere than on Linux, nobody is known to be gone before the lease is over.
    return " ".join(parts) if len(parts) == 3 else f"unknown {os.getpid()}"


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
