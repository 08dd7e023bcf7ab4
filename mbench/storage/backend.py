"""What a store needs of the place where it is, be it a folder or an object storage."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from mbench.storage.claims import Claims
from mbench.storage.place import Entry, Place


class Backend(Protocol):
    """A place for artefacts. Names are relative to it, e.g. `masks/KEY.json`.

    All raise `StoreError`, one line, for what cannot be read or written.
    """

    @property
    def root(self) -> Place:
        """What the store is called."""

    @property
    def writable(self) -> bool:
        """Whether anything can be stored."""

    @property
    def claims(self) -> Claims:
        """Who does what at this moment."""

    def exists(self) -> bool:
        """Whether there is a store already."""

    def open(self, folders: Sequence[str]) -> None:
        """Make it if it is absent, and raise `StoreError` where a folder cannot be read."""

    def misplaced(self, folders: Sequence[str]) -> list[str]:
        """Of these, what is there and no folder."""

    def place(self, name: str) -> Place:
        """Where an artefact is, for those who read it."""

    def has_file(self, name: str) -> bool:
        """Whether there is such a file."""

    def write(self, name: str, content: bytes) -> None:
        """Write a file, whole, over whatever is there."""

    def write_new(self, name: str, content: bytes) -> None:
        """Write a file where there is none; else raises `AlreadyThere`."""

    def new_folder(self, name: str) -> AbstractContextManager[Path]:
        """A folder of this machine that becomes one of the store; raises `AlreadyThere`."""

    def scratch_folder(self, name: str) -> Path:
        """A folder of this machine for what is to be stored; see `atomic.temporary_folder`."""

    def remove(self, name: str) -> None:
        """Remove a file or folder, so that others see all of it or nothing."""

    def move(self, name: str, to: str) -> None:
        """Give a file or folder another name; raises `FileNotFoundError` where it is gone."""

    def put_back(self, moved: str, name: str) -> None:
        """Give what was moved its name again, unless something has it by now."""

    def overwrite(self, name: str) -> bool:
        """Have the next `write_new` or `new_folder` replace what cannot be moved, if they can."""

    def entries(self, folder: str) -> list[Entry]:
        """Every file and folder within a folder, by name; none where it is absent."""

    def sweep(self, folders: Sequence[str]) -> None:
        """Remove what killed processes left unfinished."""
