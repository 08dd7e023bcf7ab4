"""What a store must be after whatever was done to it: whole, and without leftovers."""

from __future__ import annotations

from pathlib import Path

from mbench.core.errors import StoreError
from mbench.storage.housekeeping import contents, describe
from mbench.storage.store import Store


def whole(stored):
    return describe(stored, whole=True)


def failure_of(work) -> str:
    """The text of the `StoreError` that some work raises, or nothing."""
    try:
        work()
    except StoreError as error:
        return str(error)
    return ""


def assert_whole_and_tidy(store: Path, temporaries: int = 0) -> None:
    assert all(not described.damage for described in map(whole, contents(Store(store))))
    assert len(list(store.glob("*/.*"))) <= temporaries
