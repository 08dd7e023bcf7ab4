"""Where something of a store is: a path, or a place elsewhere, for those who list and read it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeAlias, TypeVar

T = TypeVar("T")


class RemotePlace(ABC):
    """A file elsewhere, or a folder of files that belong together; as text, its URL.

    Raises `FileNotFoundError` where nothing is there, and `StoreError` where it cannot be reached.
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """Its last part."""

    @abstractmethod
    def __truediv__(self, name: str) -> Self:
        """Something within the folder."""

    @abstractmethod
    def read(self) -> bytes:
        """The content of a file."""

    @abstractmethod
    def member(self, name: str, sha256: str) -> Self:
        """A file of the folder, by its name and content."""

    @abstractmethod
    def sizes(self) -> Mapping[str, int]:
        """Bytes of the files within the folder, by name."""

    @abstractmethod
    def with_copy(self, sha256: str, read: Callable[[Path], T]) -> T:
        """What `read` makes of a verified copy of the file, which has this sha256, on this machine.

        Raises `Damaged` where what is there has another.
        """


Place: TypeAlias = Path | RemotePlace


@dataclass(frozen=True)
class Entry:
    """A file or folder as a listing has it."""

    name: str
    place: Place
    size: int
    """Bytes of all its files."""
    written: float
    """Seconds since the epoch."""
