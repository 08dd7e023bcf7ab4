"""Text and token sequences for calibration and perplexity."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mbench.core.errors import CorpusError, MbenchError
from mbench.plan.registry import unknown

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from mbench.core.suite import CorpusSpec, TextSource

PluginCorpora = Mapping[str, Callable[[str], list[str]]]


@dataclass(frozen=True)
class TokenSequences:
    """Calibration sequences, padded on the right."""

    ids: np.ndarray
    """int64 [sequences, length]."""
    lengths: np.ndarray
    """int64 [sequences], tokens that are not padding."""

    def __getitem__(self, rows: slice | np.ndarray) -> TokenSequences:
        """Some of the sequences."""
        return TokenSequences(self.ids[rows], self.lengths[rows])

    @property
    def tokens(self) -> int:
        """Tokens in all sequences, padding excluded."""
        return int(self.lengths.sum())


class Text:
    """The documents of one source, read at most once and only if something needs them."""

    def __init__(self, name: str, source: TextSource, plugin_corpora: PluginCorpora) -> None:
        """`name` is what errors call it."""
        self.name = name
        self.source = source
        self._plugin_corpora = plugin_corpora
        self._documents: list[str] | None = None

    @property
    def documents(self) -> list[str]:
        """The documents in order; raises `CorpusError` where they cannot be had.

        Blank ones stay: some data sets have a row a line, and joining them needs the empty lines.
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
                raise CorpusError(f"{self.name}: the source holds no text")
        return self._documents

    def identity(self) -> dict[str, Any]:
        """What decides the documents: the hub's commit, else a hash of the text itself.

        A plugin's function may have a method `identity(split) -> str` that tells it unread.
        """
        if self.source.hub is not None:
            return {**self.source.model_dump(mode="json"), "revision": self._commit()}
        tell = getattr(self._plugin_corpora.get(str(self.source.plugin)), "identity", None)
        if tell is not None:
            return {"identity": str(self._call(tell))}
        digest = hashlib.sha256()
        for document in self.documents:
            digest.update(json.dumps(document).encode())
        return {"documents": digest.hexdigest()}

    def _plugin(self) -> list[str]:
        return list(self._call(self._plugin_corpora[str(self.source.plugin)]))

    def _call(self, function: Callable[[str], Any]) -> Any:
        """What a plugin says of the split."""
        try:
            return function(self.source.split)
        except MbenchError:
            raise
        # A stranger's function may raise anything.
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            corpus = f"plugin corpus {self.source.plugin!r}, split {self.source.split!r}"
            raise CorpusError(f"{self.name}: {corpus}: {reason}") from None

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

    def _commit(self) -> str:
        from mbench.storage import hub

        try:
            return self.source.revision or hub.commit(
                str(self.source.hub), None, "dataset", "README.md"
            )
        except hub.HubRefusal as error:
            raise self._unreachable(str(error)) from None

    def _unreachable(self, reason: str) -> CorpusError:
        return CorpusError(
            f"{self.name}: cannot load dataset {self.source.hub} (split {self.source.split}):"
            f" {reason}; to use local text: --set '{self.name}.source={{files: [PATH]}}';"
            " suites/quickstart.yaml runs offline"
        )

    def _hub(self) -> list[str]:
        import datasets

        source = self.source
        commit = self._commit()
        datasets.disable_progress_bars()
        try:
            loaded = datasets.load_dataset(
                source.hub,
                source.subset,
                split=source.split,
                revision=commit,
                data_files=source.data_files,
            )
        # The library raises its own, requests', and built-in errors for the same few causes.
        except Exception as error:
            reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
            raise self._unreachable(reason) from None
        if source.field not in loaded.column_names:
            problem = unknown("field", source.field, loaded.column_names)
            raise CorpusError(f"{self.name}: {source.hub}: {problem}")
        return [str(text) for text in loaded[source.field]]


def sequences(text: Text, spec: CorpusSpec, tokenizer: PreTrainedTokenizerBase) -> TokenSequences:
    """Cut a calibration corpus into the sequences that `spec` asks for.

    No special tokens are added. See `CorpusSpec.packing`; raises `CorpusError` if the text is too
    short.
    """
    generator = np.random.default_rng(spec.seed)
    if spec.packing == "contiguous":
        return _contiguous(text, spec, tokenizer, generator)
    documents = [document for document in text.documents if document.strip()]
    order = generator.permutation(len(documents))
    if spec.packing == "document":
        if len(documents) < spec.sequences:
            raise CorpusError(
                f"{text.name}: {len(documents)} documents, but {spec.sequences} sequences asked"
            )
        ids = np.zeros((spec.sequences, spec.length), dtype=np.int64)
        lengths = np.zeros(spec.sequences, dtype=np.int64)
        for row, document in enumerate(order[: spec.sequences]):
            tokens = _tokenize(tokenizer, documents[document])[: spec.length]
            ids[row, : len(tokens)] = tokens
            lengths[row] = len(tokens)
        return TokenSequences(ids, lengths)
    needed = spec.sequences * spec.length
    stream: list[int] = []
    for position, document in enumerate(order):
        stream += _tokenize(tokenizer, (spec.join if position else "") + documents[document])
        if len(stream) >= needed:
            break
    return _cut(text, spec, stream)[: spec.sequences]


def _contiguous(
    text: Text,
    spec: CorpusSpec,
    tokenizer: PreTrainedTokenizerBase,
    generator: np.random.Generator,
) -> TokenSequences:
    whole = _cut(text, spec, _tokenize(tokenizer, spec.join.join(text.documents)))
    return whole[np.sort(generator.permutation(len(whole.ids))[: spec.sequences])]


def _cut(text: Text, spec: CorpusSpec, stream: list[int]) -> TokenSequences:
    """All whole sequences of a stream of tokens."""
    count = len(stream) // spec.length
    if count < spec.sequences:
        raise CorpusError(
            f"{text.name}: {len(stream)} tokens, but {spec.sequences} sequences of {spec.length}"
            f" ({spec.sequences * spec.length}) asked; ask for at most {count} sequences"
        )
    ids = np.array(stream[: count * spec.length], dtype=np.int64).reshape(count, spec.length)
    return TokenSequences(ids, np.full(count, spec.length, dtype=np.int64))


def _tokenize(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    # Longer than the model's window on purpose: the stream is cut afterwards.
    return tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
