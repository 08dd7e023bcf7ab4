"""A repository of the hub at one commit: which files it has, and what their bytes must be."""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeVar

from mbench.storage.file_hash import git_blob_id
from mbench.storage.hub.answers import HubRefusal, HubUnreachable, Say, hub, in_one_line
from mbench.storage.records import from_plain, to_plain
from mbench.storage.store import Key, Store

Kind = Literal["model", "dataset"]

T = TypeVar("T")

COMMIT = re.compile("[0-9a-f]{40}")


@dataclass(frozen=True)
class HubFile:
    """One file of a repository, as the hub lists it."""

    name: str
    """With `/` between folders."""
    size: int
    """Bytes."""
    sha256: str | None
    """Of the content, if the file is kept in large file storage."""
    git: str
    """Name that git gives the content; of a file in large file storage, what stands for it."""


@dataclass(frozen=True)
class Repository:
    """A repository at one commit."""

    kind: Kind
    name: str
    """Like `owner/name`."""
    revision: str | None
    """As asked for: branch, tag or commit; None is the default branch."""
    commit: str
    files: tuple[HubFile, ...]
    """All of them, sorted by name."""
    note: str = ""
    """Why the hub was not asked, and what was taken instead; empty if it answered."""

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"

    def file(self, name: str) -> HubFile:
        """The file of this name; raises `HubRefusal` if the commit has none."""
        for each in self.files:
            if each.name == name:
                return each
        raise HubRefusal(f"{self}: commit {self.commit[:12]} has no file {name!r}")

    def has(self, name: str) -> bool:
        """Whether the commit has a file of this name."""
        return any(each.name == name for each in self.files)


@dataclass(frozen=True)
class _Resolution:
    """What a revision stood for when the hub was asked last."""

    commit: str
    on: str


@dataclass(frozen=True)
class _Listing:
    files: tuple[HubFile, ...]


def resolve(
    kind: Kind, name: str, revision: str | None, store: Store | None, *, say: Say
) -> Repository:
    """Return what `revision` of a repository stands for now, with all its files.

    The hub is asked, unless `revision` is a commit whose files are known. If it cannot be reached,
    what it said last counts, which `store` remembers; else what the local cache of huggingface_hub
    has. `say` is told what a wait is for.

    Raises:
        HubRefusal: the hub has no such thing or does not give it to this user; or it cannot be
            reached, and nothing is known of the repository.
    """
    from mbench.storage.hub.client import asking

    if revision is not None and COMMIT.fullmatch(revision):
        known = _listed(kind, name, revision, store)
        if known is not None:
            return Repository(kind, name, revision, revision, known)
    what = f"{kind} {name}" + (f", revision {revision}" if revision else "")
    try:
        with asking(say), in_one_line(what):
            commit, files = _ask(kind, name, revision)
    except HubUnreachable as error:
        known_before = _remembered(kind, name, revision, store) or _cached(kind, name, revision)
        if known_before is None:
            raise HubUnreachable(f"{error}, and nothing of it is in the local cache") from None
        reason = str(error).removeprefix(f"{what}: ")
        return replace(known_before, note=f"{reason}: {known_before.note}")
    if store is not None:
        today = datetime.date.today().isoformat()
        resolution = to_plain(_Resolution(commit, today))
        store.write_json(_resolution_key(kind, name, revision), resolution, replace=True)
        store.write_json(_listing_key(kind, name, commit), to_plain(_Listing(files)))
    return Repository(kind, name, revision, commit, files)


def forget(repository: Repository, store: Store | None) -> None:
    """Let the hub be asked again what this commit has: a file did not come as listed."""
    if store is not None:
        store.forget(_listing_key(repository.kind, repository.name, repository.commit))


def _ask(kind: Kind, name: str, revision: str | None) -> tuple[str, tuple[HubFile, ...]]:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    info = HfApi().repo_info(name, revision=revision, repo_type=kind)
    commit = info.sha or ""
    if not COMMIT.fullmatch(commit):
        raise HubUnreachable(f"{hub()} answered without a commit")
    if revision is not None and COMMIT.fullmatch(revision) and revision != commit:
        raise HubUnreachable(f"{hub()} answered for another commit, {commit}")
    tree = HfApi().list_repo_tree(name, recursive=True, revision=commit, repo_type=kind)
    files = [
        HubFile(each.path, each.lfs.size, each.lfs.sha256, each.blob_id)
        if each.lfs
        else HubFile(each.path, each.size, None, each.blob_id)
        for each in tree
        if isinstance(each, RepoFile)
    ]
    # The hub names the files twice: a name that came damaged would be a file that is not there.
    named = {each.rfilename for each in getattr(info, "siblings", None) or []}
    missing = sorted(named - {file.name for file in files})
    if missing:
        raise HubUnreachable(f"{hub()} lists the files in two ways that differ in {missing[0]!r}")
    return commit, tuple(sorted(files, key=lambda file: file.name))


def _resolution_key(kind: Kind, name: str, revision: str | None) -> Key:
    made_by = {"kind": "resolution", "hub": hub(), "of": kind, "name": name, "revision": revision}
    return Key.of("facts", f"commit of {kind} {name}", made_by)


def _listing_key(kind: Kind, name: str, commit: str) -> Key:
    made_by = {"kind": "listing", "hub": hub(), "of": kind, "name": name, "commit": commit}
    return Key.of("facts", f"files of {kind} {name}", made_by)


def recall(kind: type[T], key: Key, store: Store | None) -> T | None:
    """What `store` remembers under a key, or None."""
    try:
        stored = store and store.read_json(key)
        return None if stored is None else from_plain(kind, stored)
    except ValueError:
        # Stored in the form of another version.
        return None


def _remembered(
    kind: Kind, name: str, revision: str | None, store: Store | None
) -> Repository | None:
    """What the hub said when it was asked last."""
    last = recall(_Resolution, _resolution_key(kind, name, revision), store)
    files = None if last is None else _listed(kind, name, last.commit, store)
    if last is None or files is None:
        return None
    note = f"commit {last.commit[:12]} as resolved on {last.on}"
    return Repository(kind, name, revision, last.commit, files, note)


def _listed(kind: Kind, name: str, commit: str, store: Store | None) -> tuple[HubFile, ...] | None:
    listing = recall(_Listing, _listing_key(kind, name, commit), store)
    return None if listing is None else listing.files


def repository_folder(kind: Kind, name: str) -> Path:
    """Where huggingface_hub caches a repository."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    return Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=name, repo_type=kind)


def _cached(kind: Kind, name: str, revision: str | None) -> Repository | None:
    """What the cache of huggingface_hub has, whoever put it there."""
    folder = repository_folder(kind, name)
    try:
        commit = revision or (folder / "refs" / "main").read_text(encoding="utf-8").strip()
        if not COMMIT.fullmatch(commit):
            commit = (folder / "refs" / commit).read_text(encoding="utf-8").strip()
        snapshot = folder / "snapshots" / commit
        if not COMMIT.fullmatch(commit):
            return None
        paths = [path for path in snapshot.rglob("*") if path.is_file()]
        files = [_cached_file(path, path.relative_to(snapshot).as_posix()) for path in paths]
    except (OSError, UnicodeDecodeError):
        return None
    note = f"commit {commit[:12]} as it is in the local cache"
    ordered = tuple(sorted(files, key=lambda file: file.name))
    return Repository(kind, name, revision, commit, ordered, note) if files else None


def _cached_file(path: Path, name: str) -> HubFile:
    """The cache names what it has by what the hub said of its content: that must still be so."""
    stem, size = path.resolve().name, path.stat().st_size
    if re.fullmatch("[0-9a-f]{64}", stem):
        return HubFile(name, size, stem, "")
    return HubFile(name, size, None, stem if COMMIT.fullmatch(stem) else git_blob_id(path))
