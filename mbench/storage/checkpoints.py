"""A checkpoint's files and the hash of their content; needs no torch, so that plans are quick."""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import re
import shutil
from collections.abc import Collection, Iterator, Sequence
from functools import cache, cached_property
from pathlib import Path

from mbench.core.errors import MbenchError, ModelNotFound
from mbench.storage.atomic import scratch_folder
from mbench.storage.checkpoint_files import (
    READ_BY_CODE,
    STORED_FORM_FILES,
    TOKENIZER_FILES,
    FileNames,
    file_names,
    matching,
)
from mbench.storage.file_hash import file_hash
from mbench.storage.hub.answers import HubRefusal
from mbench.storage.hub.fetch import Advance
from mbench.storage.hub.repository import Repository, recall
from mbench.storage.inputs import Inputs
from mbench.storage.records import to_plain
from mbench.storage.store import Key, Store

HINT = (
    "nor is there such a directory: give one with --model NAME=PATH; `mbench run quickstart` needs"
    " no hub"
)


class Directory:
    """A checkpoint in a folder of this machine."""

    def __init__(
        self, folder: Path, *, remote_code: bool = False, store: Store | None = None
    ) -> None:
        """Nothing is read yet; `store` remembers hashes, so that weights are read once."""
        self.folder = folder
        self.revision: str | None = None
        self._remote_code = remote_code
        self._store = store

    @property
    def place(self) -> str:
        """How errors name it."""
        return str(self.folder)

    @cached_property
    def names(self) -> FileNames:
        """Its files; raises `ModelNotFound` if some are missing."""
        # Code may lie anywhere below, all else at the top or in a folder there.
        patterns = ("*", "*/*", "**/*.py") if self._remote_code else ("*", "*/*")
        paths = (path for pattern in patterns for path in self.folder.glob(pattern))
        names = {path.relative_to(self.folder).as_posix() for path in paths if path.is_file()}

        def read(name: str) -> str:
            return (self.folder / name).read_text(encoding="utf-8")

        with _named(self.place):
            return file_names(names, read, remote_code=self._remote_code)

    def sha256(self, name: str) -> str:
        """The hash of a file's content; raises `ModelNotFound` if it cannot be read."""
        with _named(self.place):
            return file_hash(self.folder / name, self._store)

    def size(self, name: str) -> int:
        """Bytes of a file."""
        return (self.folder / name).stat().st_size

    def small_files(self) -> Path:
        """The folder itself."""
        return self.folder

    def all_files(self, others: Sequence[str] = ()) -> Path:
        """The folder itself."""
        return self.folder

    def missing(self) -> int:
        """Nothing: it is all here."""
        return 0

    def fetch(self, advance: Advance) -> None:
        """Nothing to do."""

    def refuse_missing(self) -> None:
        """Nothing is missing."""


class OnHub:
    """A checkpoint in a repository of the hub, at one commit."""

    def __init__(
        self, inputs: Inputs, repository: Repository, *, remote_code: bool = False
    ) -> None:
        """Nothing is fetched yet."""
        self.repository = repository
        self._inputs = inputs
        self._remote_code = remote_code
        self._refusal: HubRefusal | None = None

    @property
    def place(self) -> str:
        """How errors name it."""
        return self.repository.name

    @property
    def revision(self) -> str:
        """The commit."""
        return self.repository.commit

    @cached_property
    def names(self) -> FileNames:
        """Its files; raises `ModelNotFound` if some are missing, or their index is out of reach."""

        def read(name: str) -> str:
            folder = self._inputs.fetch(self.repository, [name])
            return (folder / name).read_text(encoding="utf-8")

        listed = {file.name for file in self.repository.files}
        # Remembered, so that a finished run needs no index of weights.
        asked: dict[str, object] = {"kind": "files of a checkpoint", "listed": sorted(listed)}
        asked |= {"commit": self.revision, "remote_code": self._remote_code}
        # Another version may look for others.
        asked |= {"patterns": [*TOKENIZER_FILES, *STORED_FORM_FILES, *READ_BY_CODE]}
        key = Key.of("facts", f"files of {self.repository} that are loaded", asked)
        known = recall(FileNames, key, self._inputs.store)
        if known is not None:
            return known
        with _named(self.place):
            names = file_names(listed, read, remote_code=self._remote_code)
        self._inputs.store.write_json(key, to_plain(names))
        return names

    def sha256(self, name: str) -> str:
        """The hash of a file's content; raises `ModelNotFound` if it is out of reach."""
        with _named(self.place):
            return self._inputs.sha256(self.repository, name)

    def size(self, name: str) -> int:
        """Bytes of a file."""
        return self.repository.file(name).size

    def small_files(self) -> Path:
        """A folder with all but the weights."""
        return self._folder(self.names.small)

    def all_files(self, others: Sequence[str] = ()) -> Path:
        """A folder with everything, and with other files at the top that match these patterns."""
        listed = [file.name for file in self.repository.files]
        return self._folder(sorted({*self.names.all, *matching(listed, others)}))

    def _folder(self, names: Collection[str]) -> Path:
        """A folder with these files and no others, whatever else was fetched some time."""
        self.refuse_missing()
        with _named(self.place):
            cache = self._inputs.fetch(self.repository, names)
        # Some libraries tell models apart by the last part of their path.
        kind = hashlib.sha256("\n".join(names).encode()).hexdigest()[:8]
        folder = _links() / f"{self.revision}-{kind}"
        for name in names:
            link = folder / name
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.is_symlink():
                link.symlink_to((cache / name).resolve())
        return folder

    def missing(self) -> int:
        """Bytes that are not on disk yet."""
        return self._inputs.missing(self.repository, self.names.all)

    def fetch(self, advance: Advance) -> None:
        """Have all files on disk; what goes wrong is raised by `all_files`."""
        try:
            self._inputs.fetch(self.repository, self.names.all, advance)
        except HubRefusal as error:
            self._refusal = error

    def refuse_missing(self) -> None:
        """Raise `ModelNotFound` where fetching went wrong."""
        with _named(self.place):
            if self._refusal is not None:
                raise self._refusal


@cache
def _links() -> Path:
    """A folder that lives as long as the process."""
    folder = scratch_folder("models")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


Checkpoint = Directory | OnHub


def find_checkpoint(
    path_or_id: str, revision: str | None, inputs: Inputs, *, remote_code: bool = False
) -> Checkpoint:
    """The checkpoint in a directory, or of a model id of the hub as `inputs` resolves it.

    Raises `ModelNotFound` if there is none.
    """
    directory = local_directory(path_or_id)
    if directory is not None:
        return Directory(directory, remote_code=remote_code, store=inputs.store)
    with _named(path_or_id):
        repository = inputs.repository("model", path_or_id, revision)
    return OnHub(inputs, repository, remote_code=remote_code)


def local_directory(path_or_id: str) -> Path | None:
    """Return the directory, or None where the text is a model id of the Hugging Face hub.

    Raises `ModelNotFound` for a path that is not a directory.
    """
    path = Path(path_or_id).expanduser()
    if path.is_dir():
        return path
    is_id = re.fullmatch(r"[\w.-]+(/[\w.-]+)?", path_or_id) and not path_or_id.startswith(".")
    if path.exists() or not is_id:
        raise ModelNotFound(f"model {path_or_id}: no such directory")
    return None


def model_key(checkpoint: Checkpoint, *, remote_code: bool = False) -> str:
    """Return what identifies a model's content: equal on the hub and in a directory.

    It covers every byte of configuration, tokenizer and weights, and no path or commit; with
    `remote_code` (whether the model's own code may run) the code too. Weights on the hub are not
    fetched for it where the hub states their hashes. Raises `ModelNotFound` if files are missing.
    """
    total = hashlib.sha256()
    for name in checkpoint.names.all:
        total.update(f"{name} {checkpoint.sha256(name)}\n".encode())
    return f"sha256:{total.hexdigest()}" + (":remote-code" if remote_code else "")


def refuse_incomplete(folder: Path) -> None:
    """Raise `ModelNotFound` where a folder lacks the files of a checkpoint."""
    Directory(folder).names  # noqa: B018


@contextlib.contextmanager
def _named(place: str) -> Iterator[None]:
    """Put the model's name in front of an error's text."""
    try:
        yield
    except HubRefusal as error:
        reason = str(error).removeprefix(f"model {place}: ").removeprefix(f"model {place}, ")
        raise ModelNotFound(f"model {place}: {reason}; {HINT}") from error
    except (ModelNotFound, OSError, UnicodeDecodeError) as error:
        raise ModelNotFound(f"model {place}: {error}") from error


@contextlib.contextmanager
def naming_place(folder: Path, place: str) -> Iterator[None]:
    """Let errors name where a model comes from instead of the folder that it is read from."""
    try:
        yield
    except MbenchError as error:
        raise type(error)(str(error).replace(str(folder), place)) from error
