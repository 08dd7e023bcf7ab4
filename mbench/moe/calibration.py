"""Calibration sequences: tokenises a corpus and cuts it as the suite says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mbench.core.errors import CorpusError
from mbench.core.suite import CorpusSpec
from mbench.storage.texts import Text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


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
                f"{text.name}: the suite asks for {spec.sequences} sequences of one document each,"
                f" but there are only {len(documents)} documents"
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
            f"{text.name}: the suite asks for {spec.sequences} sequences of {spec.length} tokens"
            f" ({spec.sequences * spec.length}), but the text has {len(stream)} tokens, enough for"
            f" {count}"
        )
    ids = np.array(stream[: count * spec.length], dtype=np.int64).reshape(count, spec.length)
    return TokenSequences(ids, np.full(count, spec.length, dtype=np.int64))


def _tokenize(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    # Longer than the model's window on purpose: the stream is cut afterwards.
    ids: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return ids
