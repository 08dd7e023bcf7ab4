"""The files of a commit as a hub lists them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any


def entries(
    files: Mapping[str, bytes], large: Callable[[str], bool], recursive: bool, below: str = ""
) -> list[dict[str, Any]]:
    """What a hub says of the files of a commit that are in a folder, and of the folders there."""
    listed: list[dict[str, Any]] = []
    folders, prefix = set(), f"{below}/" if below else ""
    for name, content in files.items():
        parents = name.removeprefix(prefix).split("/")[:-1]
        for depth in range(1, len(parents) + 1):
            folders.add(prefix + "/".join(parents[:depth]))
        entry: dict[str, Any] = {"type": "file", "path": name, "size": len(content)}
        entry["oid"] = git_id(content)
        if large(name):
            sha256 = hashlib.sha256(content).hexdigest()
            entry["lfs"] = {"oid": sha256, "size": len(content), "pointerSize": 130}
            entry["oid"] = git_id(sha256.encode())
        if recursive or not parents:
            listed.append(entry)
    listed += [
        {"type": "directory", "path": each, "size": 0, "oid": "0" * 40}
        for each in sorted(folders)
        if recursive or "/" not in each.removeprefix(prefix)
    ]
    return listed


def git_id(content: bytes) -> str:
    """The name that git gives a content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
