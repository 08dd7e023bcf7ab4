"""Calibration sequences: tokenises a corpus and cuts it as the suite says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mbench.core.errors import CorpusError
from mbench.core.suite import CorpusSpec
from mbench.moe.tokenizer import bos_at
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

    def beginning_with(self, token: int) -> int:
        """How many begin with a token."""
        return int(((self.ids[:, 0] == token) & (self.lengths > 0)).sum())

    def __getitem__(self, rows: slice | np.ndarray) -> TokenSequences:
        """Some of the sequences."""
        return TokenSequences(self.ids[rows], self.lengths[rows])

    @property
    def tokens(self) -> int:
        """Tokens in all sequences, padding excluded."""
        return int(self.lengths.sum())


def sequences(text: Text, spec: CorpusSpec, tokenizer: PreTrainedTokenizerBase) -> TokenSequences:
    """Cut a calibration corpus into the sequences that `spec` asks for.

    See `CorpusSpec.packing` and `CorpusSpec.bos`; raises `CorpusError` if the text is too short, or
    if there is no BOS token where it is asked for.
    """
    try:
        where, bos = bos_at(tokenizer, spec.bos, "window")
    except CorpusError as error:
        raise CorpusError(f"{text.name}: {error}") from None
    # BOS is one of a sequence's tokens.
    begin = [bos] if bos is not None and where == "window" else []
    before = [bos] if bos is not None and where == "document" else []
    room = spec.length - len(begin)
    if not room:
        raise CorpusError(f"{text.name}: sequences of 1 token have no room beside BOS")
    generator = np.random.default_rng(spec.seed)
    if spec.packing == "contiguous":
        if before:
            last = len(text.documents) - 1
            stream = [
                token
                for at, document in enumerate(text.documents)
                for token in (
                    *(before if document.strip() else ()),
                    *_tokenize(tokenizer, document + spec.join * (at < last)),
                )
            ]
        else:
            stream = _tokenize(tokenizer, spec.join.join(text.documents))
        whole = _cut(text, spec, stream, begin)
        return whole[np.sort(generator.permutation(len(whole.ids))[: spec.sequences])]
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
            tokens = [*begin, *before, *_tokenize(tokenizer, documents[document])][: spec.length]
            ids[row, : len(tokens)] = tokens
            lengths[row] = len(tokens)
        return TokenSequences(ids, lengths)
    needed = spec.sequences * room
    stream = []
    for position, document in enumerate(order):
        if before:
            after = spec.join * (position < len(order) - 1)
            stream += before + _tokenize(tokenizer, documents[document] + after)
        else:
            stream += _tokenize(tokenizer, spec.join * (position > 0) + documents[document])
        if len(stream) >= needed:
            break
    return _cut(text, spec, stream, begin)[: spec.sequences]


def refuse_too_long(name: str, spec: CorpusSpec, positions: int | None) -> None:
    """Raise `CorpusError` where sequences are longer than a model's positions (None: no limit)."""
    if positions is not None and spec.length > positions:
        raise CorpusError(
            f"{name}: sequences of {spec.length} tokens, but the model has {positions} positions"
        )


def _cut(text: Text, spec: CorpusSpec, stream: list[int], begin: list[int]) -> TokenSequences:
    """All whole sequences of a stream of tokens, each of which begins with `begin`."""
    room = spec.length - len(begin)
    count = len(stream) // room
    if count < spec.sequences:
        raise CorpusError(
            f"{text.name}: the suite asks for {spec.sequences} sequences of {spec.length} tokens"
            f" ({spec.sequences * spec.length}), but the text has {len(stream)} tokens, enough for"
            f" {count}"
        )
    ids = np.array(stream[: count * room], dtype=np.int64).reshape(count, room)
    if begin:
        ids = np.insert(ids, 0, begin, axis=1)
    return TokenSequences(ids, np.full(count, spec.length, dtype=np.int64))


def _tokenize(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    # Longer than the model's window on purpose: the stream is cut afterwards.
    ids: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return ids
