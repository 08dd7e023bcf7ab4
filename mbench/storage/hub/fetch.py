"""The files of a repository on disk, each with exactly the bytes that its commit has."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path, PurePosixPath
from typing import Any

from mbench.storage.file_hash import file_hash, git_blob_id
from mbench.storage.hub.answers import HubRefusal, HubUnreachable, Say, hub, in_one_line
from mbench.storage.hub.repository import HubFile, Repository, forget, repository_folder
from mbench.storage.store import Store

AT_ONCE = 4
"""Files that are fetched side by side."""

Advance = Callable[[int], object]
"""Is told of bytes that have come since it was told last; of fewer if some had to be dropped."""


def missing(repository: Repository, names: Iterable[str]) -> int:
    """Return how many bytes of these files are not on disk yet."""
    files = [repository.file(name) for name in names]
    return sum(file.size for file in files if not _path(repository, file.name).is_file())


def fetch(
    repository: Repository,
    names: Iterable[str],
    store: Store | None,
    *,
    say: Say,
    advance: Advance = lambda size: None,
) -> Path:
    """Return a folder with these files of the commit, fetched where they are not on disk yet.

    It may have other files too, which somebody fetched some time: read none but these.

    Each has been compared with what the hub lists: one that differs is fetched again, once.
    `store` remembers the hashes of files that have not changed since; `advance` is told of all
    bytes that `missing` counts, in any thread.

    Raises:
        HubRefusal: the commit has no such file, it cannot be fetched, or it came with other bytes
            twice; the text names it.
    """
    from mbench.storage.hub.client import asking, no_more_waiting

    files = [repository.file(name) for name in dict.fromkeys(names)]
    for file in files:
        refuse_outside(repository, file.name)
    with asking(say):
        work = _Fetch(repository, store, say, advance)
        pool = ThreadPoolExecutor(AT_ONCE)
        try:
            for done in as_completed([pool.submit(work.file, file) for file in files]):
                done.result()
        finally:
            work.stopped.set()
            with no_more_waiting():
                pool.shutdown(cancel_futures=True)
    return _path(repository, "")


def sha256_of(repository: Repository, name: str, store: Store | None) -> str:
    """Return the sha256 of a file; one that is not in large file storage must be fetched before."""
    file = repository.file(name)
    return file.sha256 or file_hash(_path(repository, name), store)


class _Stopped(Exception):
    """Another file could not be fetched, or the user ended the run."""


class _Fetch:
    """One call of `fetch`."""

    def __init__(
        self, repository: Repository, store: Store | None, say: Say, advance: Advance
    ) -> None:
        self.repository, self.store, self.say = repository, store, say
        self.stopped = threading.Event()
        self._advance, self._lock = advance, threading.Lock()

    def advance(self, size: int) -> None:
        if self.stopped.is_set():
            raise _Stopped
        with self._lock:
            self._advance(size)

    def file(self, file: HubFile) -> None:
        """Have one file on disk with the right bytes."""
        what = f"{self.repository}, file {file.name}"
        try:
            with in_one_line(what):
                self._twice(file, what)
        except HubUnreachable as error:
            raise HubUnreachable(f"{error}, and it is not in the local cache") from error

    def _twice(self, file: HubFile, what: str) -> None:
        path = _path(self.repository, file.name)
        problem = self._once(path, file)
        if problem is None:
            return
        _remove(path, repository_folder(self.repository.kind, self.repository.name))
        self.say(f"{what}: {problem}; it is fetched again")
        problem = self._once(path, file)
        if problem is not None:
            _remove(path, repository_folder(self.repository.kind, self.repository.name))
            forget(self.repository, self.store)
            raise HubRefusal(f"{problem}, also when it was fetched again")

    def _once(self, path: Path, file: HubFile) -> str | None:
        """Fetch a file that is not there; returns what is wrong with the one that is there now."""
        if not path.exists():
            problem = self._download(file)
            if problem is not None:
                return problem
        problem = self._difference(path, file)
        if problem is not None:
            self.advance(-file.size)
        return problem

    def _difference(self, path: Path, file: HubFile) -> str | None:
        """How a file differs from what the hub lists, or None."""
        if not path.is_file():
            return "it is no file in the local cache"
        what, commit = "size", self.repository.commit[:12]
        try:
            expected, actual = str(file.size), str(path.stat().st_size)
            if actual == expected and file.sha256:
                what, expected, actual = "sha256", file.sha256, file_hash(path, self.store)
            elif actual == expected:
                what, expected, actual = "git blob id", file.git, git_blob_id(path)
        except OSError as error:
            return f"it cannot be read in the local cache ({error.strerror})"
        if actual == expected:
            return None
        return f"its {what} is {actual}, that of commit {commit} is {expected}"

    def _download(self, file: HubFile) -> str | None:
        """Fetch one file; returns what is wrong with it if that shows meanwhile."""
        from huggingface_hub import hf_hub_download

        came = _counter(self.advance)
        try:
            path = hf_hub_download(
                self.repository.name,
                file.name,
                repo_type=self.repository.kind,
                revision=self.repository.commit,
                tqdm_class=came,
            )
        except OSError as error:
            if not str(error).startswith("Consistency check failed"):
                raise
            self.advance(-came.total)
            return "it came with another size than it was announced with"
        self.advance(file.size - came.total)
        if Path(path) != _path(self.repository, file.name):
            raise HubUnreachable(f"{hub()} sent the file of another commit")
        return None


def _counter(advance: Advance) -> Any:
    """What huggingface_hub takes for a progress bar: tells `advance`, and keeps the `total`."""

    class Counter:
        total = 0

        def __init__(self, *args: object, initial: int = 0, **options: object) -> None:
            self.n = initial

        def __enter__(self) -> Counter:
            return self

        def __exit__(self, *error: object) -> None:
            pass

        def update(self, size: float | None = 1) -> None:
            Counter.total += int(size or 0)
            advance(int(size or 0))

        def close(self) -> None:
            pass

    return Counter


def _path(repository: Repository, name: str) -> Path:
    folder = repository_folder(repository.kind, repository.name)
    return folder / "snapshots" / repository.commit / name


def refuse_outside(repository: Repository, name: str) -> None:
    """Refuse a name that leads out of the folder of the repository, on any system."""
    parts = name.split("/")
    drive = len(parts[0]) > 1 and parts[0][1] == ":"
    if (
        PurePosixPath(name).is_absolute()
        or any(part in ("", ".", "..") for part in parts)
        or "\\" in name
        or drive
        or not name.isprintable()
    ):
        raise HubRefusal(f"{repository}: the file name {name!r} leads out of its folder: refused")


def _remove(path: Path, within: Path) -> None:
    """Remove a file of the cache, and what it links to unless that lies elsewhere."""
    target = path.resolve()
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
        return
    path.unlink(missing_ok=True)
    if target.is_relative_to(within.resolve()):
        target.unlink(missing_ok=True)
