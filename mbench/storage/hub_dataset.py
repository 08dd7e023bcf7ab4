"""A dataset of the hub as a run sees it: which files hold which split, and what they contain."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mbench.storage.hub.answers import HubRefusal
from mbench.storage.hub.dataset_files import DatasetFiles, batches, open_dataset
from mbench.storage.hub.fetch import Advance
from mbench.storage.hub.repository import Repository
from mbench.storage.inputs import Inputs

if TYPE_CHECKING:
    import datasets

ALL = "all"
"""Stands for all splits, as in `datasets`."""


class HubDataset:
    """One split, or all of them, of one subset at one commit."""

    def __init__(
        self, inputs: Inputs, repository: Repository, files: DatasetFiles, split: str = ALL
    ) -> None:
        """Nothing is fetched yet; raises `HubRefusal` where there is no such split."""
        self.repository = repository
        self.files = files
        self.split = split
        self._inputs = inputs
        self._names = files.names(split)
        self._refusal: HubRefusal | None = None

    def identity(self) -> dict[str, Any]:
        """What decides the rows, wherever they lie: the content of the files, and how it is read.

        Raises `HubRefusal` where a hash is not known and the file is out of reach.
        """
        by_split = self.files.only(self.split)
        return {
            "builder": self.files.builder,
            "options": dict(self.files.options),
            "features": self.files.features,
            "split": self.split,
            "files": {
                split: [self._inputs.sha256(self.repository, name) for name in names]
                for split, names in by_split.items()
            },
        }

    def missing(self) -> int:
        """Bytes that are not on disk yet."""
        return self._inputs.missing(self.repository, self._names)

    def fetch(self, advance: Advance) -> None:
        """Have its files on disk; what goes wrong is raised by `batches` and `splits`."""
        try:
            self._inputs.fetch(self.repository, self._names, advance)
        except HubRefusal as error:
            self._refusal = error

    def refuse_missing(self) -> None:
        """Raise a `HubRefusal` where fetching went wrong."""
        if self._refusal is not None:
            raise self._refusal

    def batches(self) -> Iterator[Mapping[str, list[Any]]]:
        """The rows of its split by column, read as far as needed; raises `HubRefusal`."""
        return batches(self._folder(), self.files, self.split, of=self.repository)

    def splits(self) -> datasets.DatasetDict:
        """The rows by split; raises `HubRefusal`."""
        import datasets

        return datasets.DatasetDict({split: self._open(split) for split in self.files.files})

    def _open(self, split: str) -> datasets.Dataset:
        return open_dataset(self._folder(), self.files, split, of=self.repository)

    def _folder(self) -> Path:
        self.refuse_missing()
        return self._inputs.fetch(self.repository, self._names)
