"""Calibration sequences of texts: tokenises a corpus and cuts it as the suite says."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np

from mbench.core.errors import CorpusError
from mbench.core.suite_inputs import CorpusSpec
from mbench.moe.tokenizer import bos_at
from mbench.moe.tokens import ended_by, joined_by, tokens_of
from mbench.storage.texts import Text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Record = TypeVar("Record")
"""A document, or a conversation."""

CHARACTERS = 8
"""Characters in which there is a token at least, as a first guess."""


@dataclass(frozen=True)
class ConversationFacts:
    """What conversations were like before they were cut; of those that sequences are made of."""

    turns: np.ndarray
    """int64 [n], messages of each but those of the system."""
    lengths: np.ndarray
    """int64 [n], tokens of each, BOS included where it stands, `join` left out."""
    begin_with_bos: int
    """How many begin with BOS."""
    inside: int
    """Sequences that begin inside a conversation, or between two."""
    typed: int
    """In how many somebody typed a special token."""
    typed_token: str
    """The first of them."""
    example: str
    """The first characters of one as the template renders it."""
    unread: tuple[str, ...]
    """Options of `chat` that the template does not read."""


@dataclass(frozen=True)
class TokenSequences:
    """Calibration sequences, padded on the right."""

    ids: np.ndarray
    """int64 [sequences, length]."""
    lengths: np.ndarray
    """int64 [sequences], tokens that are not padding."""
    drawn_from: int | None = None
    """The sequences that the text has, where some of them were drawn."""
    conversations: ConversationFacts | None = None
    """Of conversations: what they were like before they were cut."""

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
        return _cut(text, spec, _whole(text, spec, tokenizer, before), begin, generator)
    written = Written(partial(_documents, text), len)
    order = generator.permutation(written.count)
    if spec.packing == "document":
        if written.count < spec.sequences:
            raise CorpusError(
                f"{text.name}: the suite asks for {spec.sequences} sequences of one document each,"
                f" but there are only {written.count} documents"
            )
        ids = np.zeros((spec.sequences, spec.length), dtype=np.int64)
        lengths = np.zeros(spec.sequences, dtype=np.int64)
        for row, document in enumerate(written.chosen(order[: spec.sequences])):
            start = [*begin, *before]
            tokens = _tokens([document], tokenizer, spec.length - len(start))
            lengths[row] = len(start) + len(tokens)
            ids[row, : lengths[row]] = [*start, *tokens]
        return TokenSequences(ids, lengths)
    needed = spec.sequences * room
    stream = [np.zeros(0, dtype=np.int32)]
    missing, at = needed, 0
    while missing > 0 and at < written.count:
        some = written.enough(order[at:], missing * CHARACTERS)
        for document in written.chosen(order[at : at + some]):
            after = spec.join * (at < written.count - 1)
            parts = [document, after] if before else [spec.join * (at > 0), document]
            stream += [np.array(before, dtype=np.int32), _tokens(parts, tokenizer, missing)]
            missing -= len(stream[-2]) + len(stream[-1])
            at += 1
            if missing <= 0:
                break
    return _cut(text, spec, np.concatenate(stream), begin)


def _whole(
    text: Text, spec: CorpusSpec, tokenizer: PreTrainedTokenizerBase, before: list[int]
) -> np.ndarray:
    """int32 [n], the documents joined; `before` stands before each that is not blank."""
    if not before:
        return _tokens(joined_by(spec.join, text.in_parts()), tokenizer)
    found = [np.zeros(0, dtype=np.int32)]
    for document, join in ended_by(spec.join, text.in_parts()):
        if document.strip():
            found.append(np.array(before, dtype=np.int32))
        found.append(_tokens([document, join], tokenizer))
    return np.concatenate(found)


def _tokens(
    parts: Iterable[str], tokenizer: PreTrainedTokenizerBase, most: float = math.inf
) -> np.ndarray:
    """int32 [n], the first `most` tokens of a text, or all."""
    found = [np.zeros(0, dtype=np.int32)]
    count = 0
    for tokens in tokens_of(parts, tokenizer):
        found.append(tokens.ids.astype(np.int32))
        count += len(tokens.ids)
        if count >= most:
            break
    whole = np.concatenate(found)
    return whole[: int(most)] if count > most else whole


class Written(Generic[Record]):
    """The records of a text that are not blank, of which few are held in memory at once."""

    def __init__(
        self, read: Callable[[], Iterator[Record]], characters: Callable[[Record], int]
    ) -> None:
        """Read the text once, to count them.

        Args:
            read: begins to read the text anew, without blank records.
            characters: of a record.
        """
        self._read = read
        self._lengths = np.fromiter(map(characters, read()), dtype=np.int64)
        self.count = len(self._lengths)

    def enough(self, order: np.ndarray, characters: int) -> int:
        """How many of these records, in order, have so many characters; at least one."""
        return int(np.searchsorted(np.cumsum(self._lengths[order]), characters)) + 1

    def chosen(self, order: np.ndarray) -> list[Record]:
        """Read the text again, for these records."""
        places = {int(number): place for place, number in enumerate(order)}
        found = {
            places[number]: record for number, record in enumerate(self._read()) if number in places
        }
        return [found[place] for place in range(len(order))]


def _documents(text: Text) -> Iterator[str]:
    for parts in text.in_parts():
        document = "".join(parts)
        if document.strip():
            yield document


def refuse_too_long(name: str, length: int, positions: int | None) -> None:
    """Raise `CorpusError` where sequences are longer than a model's positions (None: no limit)."""
    if positions is not None and length > positions:
        raise CorpusError(
            f"{name}: sequences of {length} tokens, but the model has {positions} positions"
        )


def _cut(
    text: Text,
    spec: CorpusSpec,
    stream: np.ndarray,
    begin: list[int],
    draw: np.random.Generator | None = None,
) -> TokenSequences:
    """Whole sequences of a stream of tokens, each behind `begin`: the first, or some drawn ones."""
    room = spec.length - len(begin)
    count = len(stream) // room
    if count < spec.sequences:
        raise CorpusError(
            f"{text.name}: the suite asks for {spec.sequences} sequences of {spec.length} tokens"
            f" ({spec.sequences * spec.length}), but the text has {len(stream)} tokens, enough for"
            f" {count}"
        )
    rows = np.arange(count) if draw is None else draw.permutation(count)
    rows = np.sort(rows[: spec.sequences])
    ids = stream[: count * room].reshape(count, room)[rows].astype(np.int64)
    if begin:
        ids = np.insert(ids, 0, begin, axis=1)
    lengths = np.full(spec.sequences, spec.length, dtype=np.int64)
    return TokenSequences(ids, lengths, None if draw is None else count)
