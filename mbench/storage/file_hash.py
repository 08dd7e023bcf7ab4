"""The sha256 of a file, remembered for as long as the file does not change."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any

from mbench.storage.store import Key, Store

SETTLED = 2 * 10**9
"""Nanoseconds after which a change of a file must show in its time stamps, coarse ones included."""


def file_hash(path: Path, store: Store | None) -> str:
    """Return the sha256 of a file; from the store if the file has not changed since it was read.

    A change time cannot be set by programs, so it also tells apart a file that was replaced by
    another of the same size and modification time. A file that changed a moment ago may do so
    again within the same tick of its time stamps, so its hash is not stored yet.
    """
    before = state_of(path)
    newest = max(before["mtime_ns"], before["ctime_ns"])
    stored = store.read_json(_state_key(before)) if store else None
    if stored is not None:
        return str(stored["sha256"])
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    settled = time.time_ns() - newest > SETTLED
    if store and settled and state_of(path) == before:
        store.write_json(_state_key(before), {"sha256": digest})
    return digest


def git_blob_id(path: Path) -> str:
    """Return the name that git gives the content of a file: a sha1 of its size and its bytes."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def state_of(path: Path) -> dict[str, Any]:
    """Return what changes with a file: its place on disk, its size and its times."""
    status = path.stat()
    fields = {name: getattr(status, f"st_{name}") for name in ("size", "mtime_ns", "ctime_ns")}
    return {"path": str(path.resolve()), "inode": status.st_ino, **fields}


def _state_key(state: dict[str, Any]) -> Key:
    return Key.of("facts", f"hash of {state['path']}", {"kind": "file", **state})
