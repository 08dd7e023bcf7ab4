"""Text and token sequences for calibration and perplexity."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mbench.errors import CorpusError
from mbench.plugins import unknown

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from mbench.suite import CorpusSpec, TextSource

PluginCorpora = Mapping[str, Callable[[str], list[str]]]


@dataclass(frozen=True)
class TokenSequences:
    """Calibration sequences, padded on the right."""

    ids: np.ndarray
    """int64 [sequences, length]."""
    lengths: np.ndarray
    """int64 [sequences], tokens that are not padding."""

    @property
    def tokens(self) -> int:
        """Tokens in all sequences, padding excluded."""
        return int(self.lengths.sum())


class Text:
    """The documents of one source, read at most once and only if something needs them."""

    def __init__(self, name: str, source: TextSource, plugin_corpora: PluginCorpora) -> None:
        """`name` is what errors call it; raises `CorpusError` for an unknown plugin corpus."""
        self.name = name
        self.source = source
        self._plugin_corpora = plugin_corpora
        self._documents: list[str] | None = None
        if source.plugin is not None and source.plugin not in plugin_corpora:
            problem = unknown("plugin corpus", source.plugin, plugin_corpora)
            raise CorpusError(f"{name}: {problem}")

    @property
    def documents(self) -> list[str]:
        """The documents, none of them blank; raises `CorpusError` where they cannot be had."""
        if self._documents is None:
            if self.source.plugin is not None:
                documents = self._plugin_corpora[self.source.plugin](self.source.split)
            elif self.source.files is not None:
                documents = [text for path in self.source.files for text in self._file(Path(path))]
            else:
                documents = self._hub()
            self._documents = [text for text in documents if text.strip()]
            if not self._documents:
                raise CorpusError(f"{self.name}: the source holds no text")
        return self._documents

    def identity(self) -> dict[str, Any]:
        """What decides the documents: the hub's commit, else a hash of the text itself."""
        if self.source.hub is not None:
            return {**self.source.model_dump(mode="json"), "revision": self._commit()}
        digest = hashlib.sha256()
        for document in self.documents:
            digest.update(json.dumps(document).encode())
        return {"documents": digest.hexdigest()}

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
        from mbench import hub

        try:
            return self.source.revision or hub.commit(
                str(self.source.hub), None, "dataset", "README.md"
            )
        except hub.HubRefusal as error:
            raise self._unreachable(str(error)) from None

    def _unreachable(self, reason: str) -> CorpusError:
        return CorpusError(
            f"{self.name}: cannot load dataset {self.source.hub} (split {self.source.split}):"
            f" {reason}; to use local text: --set '{self.name}.source={{files: [PATH]}}'"
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

    Documents are taken in an order shuffled by `spec.seed`. `concatenate` joins them and cuts the
    stream of tokens; `document` gives each a sequence of its own, cut or padded to `length`.
    Raises `CorpusError` if the text is too short.
    """
    documents = text.documents
    order = np.random.default_rng(spec.seed).permutation(len(documents))
    needed = spec.sequences * spec.length
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
    stream: list[int] = []
    for position, document in enumerate(order):
        stream += _tokenize(tokenizer, (spec.join if position else "") + documents[document])
        if len(stream) >= needed:
            break
    if len(stream) < needed:
        raise CorpusError(
            f"{text.name}: {len(stream)} tokens, but {spec.sequences} sequences of {spec.length}"
            f" ({needed}) asked; ask for at most {len(stream) // spec.length} sequences"
        )
    ids = np.array(stream[:needed], dtype=np.int64).reshape(spec.sequences, spec.length)
    return TokenSequences(ids, np.full(spec.sequences, spec.length, dtype=np.int64))


def _tokenize(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    # Longer than the model's window on purpose: the stream is cut afterwards.
    return tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
