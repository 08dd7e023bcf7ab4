"""The documents of a text, from local files, a plugin or a hub dataset, and their identity."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mbench.core.errors import CorpusError, PluginError, unknown
from mbench.core.plugin_code import plugin_code
from mbench.storage.file_hash import file_hash, state_of
from mbench.storage.hub.answers import HubRefusal, HubUnreachable
from mbench.storage.hub_dataset import HubDataset
from mbench.storage.inputs import Inputs
from mbench.storage.text_files.conversations import Conversation, messages_of
from mbench.storage.text_files.formats import TextFile, one_line_errors, recognise
from mbench.storage.text_files.records import parts, place, values
from mbench.storage.text_files.values import why_no_text

if TYPE_CHECKING:
    from mbench.core.suite_inputs import TextSource

PluginCorpora = Mapping[str, Callable[[str], list[str]]]

Record = TypeVar("Record")
"""A document in parts, or a conversation."""

UNSTRUCTURED = ("plain text", "CSV", "TSV")
"""Formats whose fields hold no lists."""


class Text:
    """The documents of one source; read when something needs them, as far as it needs them."""

    def __init__(
        self,
        name: str,
        source: TextSource,
        plugin_corpora: PluginCorpora,
        code: str | Mapping[str, str] = "",
        inputs: Inputs | None = None,
        trust_expected: bool = False,
    ) -> None:
        """Nothing is read yet.

        Args:
            name: its place in the suite, for errors: `corpora.c4`, `perplexity.wikitext`.
            source: where it comes from.
            plugin_corpora: functions that give documents, by name.
            code: hash, or hashes, of the code that gives the documents: a plugin's, or what reads
                files here.
            inputs: resolves a dataset of the hub, and remembers the hashes of files.
            trust_expected: whether one out of reach is identified by what the suite says of it,
                which is enough to see a plan.
        """
        self.name = name
        self.source = source
        self._plugin_corpora = plugin_corpora
        self._code = code
        self._inputs = inputs
        self._trust_expected = trust_expected

    def in_parts(self) -> Iterator[Iterable[str]]:
        """Read the documents, in order, each in parts of any length.

        Blank ones stay: some datasets have one row per line, and joining needs the empty lines.
        Raises `CorpusError` or `PluginError`, with the place, where one is no text.
        """
        return (document for document in self.records() if document is not None)

    def records(self) -> Iterator[Iterable[str] | None]:
        """Like `in_parts`, with None for a null that is skipped."""
        if self.source.plugin is not None:
            yield from ([document] for document in self._of_plugin)
        elif self.source.files is not None:
            with self._named():
                files = self._files
            for file, state in files:
                if file.format == "plain text":
                    yield self._parts(file, state)
                else:
                    yield from self._values(file, state, self._document)
        else:
            yield from self._hub(self._document)

    def conversations(self) -> Iterator[Conversation | None]:
        """Of a source with `messages`: read the conversations, in order.

        None for a null that is skipped. Raises `CorpusError`, with the place, where one is none.
        """
        if self.source.files is None:
            yield from self._hub(self._conversation)
            return
        with self._named():
            files = self._files
        for file, state in files:
            yield from self._values(file, state, self._conversation)

    def identity(self) -> dict[str, Any]:
        """What determines the documents: the content of files, here or on the hub.

        A plugin's function may have a method `identity(split) -> str`, so that it need not be
        called; else its documents are hashed. Found out once. Raises as `documents` does.
        """
        return self._identity

    @cached_property
    def _identity(self) -> dict[str, Any]:
        if self.source.hub is not None:
            # Unread, so the code that reads them counts in their place.
            try:
                with self._reachable():
                    identity = self.dataset.identity()
            except CorpusError as error:
                if self._trust_expected and isinstance(error.__cause__, HubUnreachable):
                    return {"out of reach": self.source.model_dump(mode="json")}
                raise
            return {**identity, **self._read_as, "code": self._code}
        if self.source.files is not None:
            with self._named():
                files = [self._identity_of(file) for file, _ in self._files]
            return {"files": files, **self._read_as, "code": self._code}
        identify = getattr(self._plugin_corpora.get(str(self.source.plugin)), "identity", None)
        if identify is not None:
            # Unread, so the code that would make them counts in their place.
            with self._guarded():
                return {"identity": str(identify(self.source.split)), "code": self._code}
        digest = hashlib.sha256()
        for document in self._of_plugin:
            digest.update(json.dumps(document).encode())
        return {"documents": digest.hexdigest()}

    @property
    def _read_as(self) -> dict[str, str]:
        field = "field" if self.source.messages is None else "messages"
        return {field: self._field, "nulls": self.source.nulls}

    @property
    def _field(self) -> str:
        return self.source.messages or self.source.field

    def _identity_of(self, file: TextFile) -> dict[str, str]:
        with one_line_errors(file.path):
            return {
                "format": file.format,
                "sha256": file_hash(file.path, self._inputs.store if self._inputs else None),
            }

    def _parts(self, file: TextFile, state: Mapping[str, Any]) -> Iterator[str]:
        with self._named():
            _refuse_changed(file, state)
            yield from parts(file)
            _refuse_changed(file, state)

    def _values(
        self, file: TextFile, state: Mapping[str, Any], made: Callable[[Any, str], Record]
    ) -> Iterator[Record | None]:
        with self._named():
            _refuse_changed(file, state)
            for number, value in values(file, self._field):
                yield self._checked(value, number, partial(place, file), made)
            _refuse_changed(file, state)

    def _checked(
        self,
        value: Any,
        number: int,
        where: Callable[[int], str],
        made: Callable[[Any, str], Record],
    ) -> Record | None:
        """The record that is made of a value, or None for a null that is skipped."""
        if value is None and self.source.nulls == "skip":
            return None
        try:
            return made(value, where(number))
        except ValueError as problem:
            hint = "; `nulls: skip` leaves such records out" if value is None else ""
            raise CorpusError(f"{where(number)}: field {self._field!r} {problem}{hint}") from None

    @staticmethod
    def _document(value: Any, _: str) -> list[str]:
        """The one part of a document."""
        problem = why_no_text(value)
        if problem is not None:
            raise ValueError(problem)
        return [value]

    @staticmethod
    def _conversation(value: Any, where: str) -> Conversation:
        return Conversation(messages_of(value), where)

    @property
    def files(self) -> list[TextFile]:
        """The local files; raises `CorpusError` where they cannot be read."""
        with self._named():
            return [file for file, _ in self._files]

    @cached_property
    def _files(self) -> list[tuple[TextFile, dict[str, Any]]]:
        """Every file, and its state when its identity was found out."""
        files = [recognise(Path(path).expanduser()) for path in self.source.files or ()]
        for file in files:
            if self.source.messages is not None and file.format in UNSTRUCTURED:
                valid = "JSON lines, a JSON list, parquet and Arrow do"
                raise CorpusError(f"{file.path}: {file.format} holds no conversations ({valid})")
        return [(file, _state(file)) for file in files]

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except CorpusError as error:
            raise CorpusError(f"{self.name}: {error}") from None

    @cached_property
    def _of_plugin(self) -> list[str]:
        function = self._plugin_corpora[str(self.source.plugin)]
        with self._guarded():
            given = function(self.source.split)
            # Inside, because a generator runs only now.
            documents = given if isinstance(given, str) else list(given)
        if isinstance(documents, str):
            raise PluginError(f"{self._plugin_corpus} gave one string, not a list of documents")
        for number, document in enumerate(documents, 1):
            problem = why_no_text(document)
            if problem is not None:
                raise PluginError(f"{self._plugin_corpus} document {number} {problem}")
        return documents

    def _guarded(self) -> AbstractContextManager[None]:
        return plugin_code(self._plugin_corpus)

    @property
    def _plugin_corpus(self) -> str:
        corpus = f"plugin corpus {self.source.plugin!r}, split {self.source.split!r},"
        return f"{self.name}: {corpus}"

    @cached_property
    def dataset(self) -> HubDataset:
        """Of a text on the hub; raises `CorpusError` where it cannot be found."""
        assert self._inputs is not None
        source = self.source
        with self._reachable():
            repository = self._inputs.repository("dataset", str(source.hub), source.revision)
            files = self._inputs.reading(repository, source.subset, data_files=source.data_files)
            return HubDataset(self._inputs, repository, files, source.split)

    @property
    def fetchable(self) -> HubDataset | None:
        """What must be fetched before it can be read; raises `CorpusError`."""
        return None if self.source.hub is None else self.dataset

    @contextmanager
    def _reachable(self) -> Iterator[None]:
        try:
            yield
        except HubRefusal as error:
            raise self._unreachable(str(error)) from error

    def _unreachable(self, reason: str) -> CorpusError:
        return CorpusError(
            f"{self.name}: cannot load dataset {self.source.hub} (split {self.source.split}):"
            f" {reason}; to use local text: --set '{self.name}.source={{files: [PATH]}}';"
            " `mbench run quickstart` needs no hub"
        )

    def _hub(self, made: Callable[[Any, str], Record]) -> Iterator[Record | None]:
        source = self.source
        dataset, number = self.dataset, 0
        with self._reachable(), self._named():
            for batch in dataset.batches():
                if self._field not in batch:
                    problem = unknown("field", self._field, batch)
                    raise CorpusError(f"{source.hub}: {problem}")
                for value in batch[self._field]:
                    number += 1
                    yield self._checked(value, number, self._row, made)

    def _row(self, number: int) -> str:
        return f"{self.source.hub}, split {self.source.split}, row {number}"


def _state(file: TextFile) -> dict[str, Any]:
    with one_line_errors(file.path):
        return state_of(file.path)


def _refuse_changed(file: TextFile, state: Mapping[str, Any]) -> None:
    if _state(file) != state:
        raise CorpusError(f"{file.path}: changed since the run was planned: run again")
