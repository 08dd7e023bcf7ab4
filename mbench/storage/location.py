"""From a path or a URL to the place of a store."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from mbench.core.errors import StoreError
from mbench.storage.backend import Backend
from mbench.storage.local_folder import LocalFolder


def backend_of(location: Path | str) -> Backend:
    """The place that a path or a URL names; raises `StoreError` where it cannot be one.

    `file://` is a folder; a path is never taken for a URL.
    """
    if isinstance(location, Path) or "://" not in location:
        return LocalFolder(Path(location))
    if location.startswith("file://"):
        from urllib.request import url2pathname

        parts = urlsplit(location)
        if parts.netloc not in ("", "localhost") or not parts.path:
            raise StoreError(f"the store {location} cannot be used: expected file:///PATH")
        return backend_of(Path(url2pathname(parts.path)))
    if not location.partition("://")[2].strip("/"):
        raise StoreError(
            f"the store {location} cannot be used: it names no place, as in s3://BUCKET/PREFIX"
        )
    if "::" in location:
        raise StoreError(f"the store {location} cannot be used: a URL names one place, without ::")
    from mbench.storage.remote.object_store import ObjectStore

    return ObjectStore(location)
