"""The documents of a text, from local files, a plugin or a hub dataset, and their identity."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mbench.core.errors import CorpusError, unknown
from mbench.core.plugin_code import plugin_code
from mbench.storage.hub.answers import HubRefusal
from mbench.storage.hub_dataset import HubDataset
from mbench.storage.inputs import Inputs

if TYPE_CHECKING:
    from mbench.core.suite import TextSource

PluginCorpora = Mapping[str, Callable[[str], list[str]]]


class Text:
    """The documents of one source, read at most once and only if something needs them."""

    def __init__(
        self,
        name: str,
        source: TextSource,
        plugin_corpora: PluginCorpora,
        code: str = "",
        inputs: Inputs | None = None,
    ) -> None:
        """Nothing is read yet.

        Args:
            name: its place in the suite, for errors: `corpora.c4`, `perplexity.wikitext`.
            source: where it comes from.
            plugin_corpora: functions that give documents, by name.
            code: hash of the code that gives the documents: a plugin's, or this module.
            inputs: resolves a dataset of the hub.
        """
        self.name = name
        self.source = source
        self._plugin_corpora = plugin_corpora
        self._code = code
        self._inputs = inputs
        self._documents: list[str] | None = None

    @property
    def documents(self) -> list[str]:
        """The documents in order; raises `CorpusError` where they cannot be read.

        Blank ones stay: some datasets have one row per line, and joining needs the empty lines.
        """
        if self._documents is None:
            if self.source.plugin is not None:
                documents = self._plugin()
            elif self.source.files is not None:
                documents = [text for path in self.source.files for text in self._file(Path(path))]
            else:
                documents = self._hub()
            self._documents = documents
            if not any(text.strip() for text in documents):
                raise CorpusError(f"{self.name}: every document of the source is empty")
        return self._documents

    def identity(self) -> dict[str, Any]:
        """What determines the documents: the content of a dataset's files, or of the text itself.

        A plugin's function may have a method `identity(split) -> str`, so that nothing is read.
        """
        if self.source.hub is not None:
            # Unread, so the code that reads them counts in their place.
            with self._reachable():
                identity = self.dataset.identity()
            return {**identity, "field": self.source.field, "code": self._code}
        identify = getattr(self._plugin_corpora.get(str(self.source.plugin)), "identity", None)
        if identify is not None:
            # Unread, so the code that would make them counts in their place.
            with self._guarded():
                return {"identity": str(identify(self.source.split)), "code": self._code}
        digest = hashlib.sha256()
        for document in self.documents:
            digest.update(json.dumps(document).encode())
        return {"documents": digest.hexdigest()}

    def _plugin(self) -> list[str]:
        function = self._plugin_corpora[str(self.source.plugin)]
        with self._guarded():
            # Inside, because a generator runs only now.
            return list(function(self.source.split))

    def _guarded(self) -> AbstractContextManager[None]:
        corpus = f"plugin corpus {self.source.plugin!r}, split {self.source.split!r},"
        return plugin_code(f"{self.name}: {corpus}")

    def _file(self, path: Path) -> list[str]:
        try:
            text = path.expanduser().read_text(encoding="utf-8")
        except FileNotFoundError:
            raise CorpusError(f"{self.name}: no such file: {path}") from None
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
            raise CorpusError(f"{self.name}: cannot read {path}: {reason}") from None
        if path.suffix not in (".jsonl", ".json"):
            return [text]
        documents = []
        for number, line in enumerate(text.splitlines(), 1):
            if not line.strip():
                continue
            try:
                documents.append(str(json.loads(line)[self.source.field]))
            except (ValueError, TypeError):
                raise CorpusError(f"{self.name}: {path}:{number}: not a JSON object") from None
            except KeyError:
                raise CorpusError(
                    f"{self.name}: {path}:{number}: no field {self.source.field!r}"
                ) from None
        return documents

    @cached_property
    def dataset(self) -> HubDataset:
        """Of a text on the hub; raises `CorpusError` where it cannot be found."""
        assert self._inputs is not None
        source = self.source
        with self._reachable():
            repository = self._inputs.repository("dataset", str(source.hub), source.revision)
            files = self._inputs.reading(repository, source.subset, data_files=source.data_files)
            return HubDataset(self._inputs, repository, files, source.split)

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

    def _hub(self) -> list[str]:
        source = self.source
        with self._reachable():
            loaded = self.dataset.rows()
        if source.field not in loaded.column_names:
            problem = unknown("field", source.field, loaded.column_names)
            raise CorpusError(f"{self.name}: {source.hub}: {problem}")
        return [str(text) for text in loaded[source.field]]
