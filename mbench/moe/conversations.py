"""Calibration sequences of conversations, each put into the chat template and tokenised by itself.

The tokens of a conversation are those that `tokenizer.apply_chat_template` of transformers gives,
with nothing to begin an answer at their end. Templates escape nothing: a special token that is
typed in a message becomes that token. A message that the template leaves out, e.g. for its role, is
refused, as the model would be calibrated on something else than was said.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from mbench.core.chat import ChatSpec
from mbench.core.errors import CorpusError
from mbench.core.suite_inputs import CorpusSpec
from mbench.moe.calibration import CHARACTERS, ConversationFacts, TokenSequences, Written
from mbench.moe.chat.rendering import Rendering
from mbench.moe.tokenizer import bos_at
from mbench.storage.text_files.conversations import Conversation
from mbench.storage.texts import Text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SHOWN = 100
"""Characters of an example."""


def sequences_of_conversations(
    text: Text, spec: CorpusSpec, tokenizer: PreTrainedTokenizerBase
) -> TokenSequences:
    """Cut a corpus of conversations into the sequences that `spec` asks for.

    See `CorpusSpec`. Raises `CorpusError` if there are too few conversations, or where the template
    refuses one or leaves out a message of it, or if there is no template.
    """
    encoder = _Encoder(text.name, spec, tokenizer)
    generator = np.random.default_rng(spec.seed)
    if spec.packing == "contiguous":
        return _joined(
            text.name, spec, [encoder.of(each) for each in _read(text)], encoder, generator
        )
    written = Written(partial(_read, text), lambda each: sum(map(len, each.contents)))
    order = generator.permutation(written.count)
    if spec.packing == "document":
        if written.count < spec.sequences:
            raise CorpusError(
                f"{text.name}: the suite asks for {spec.sequences} sequences of one conversation"
                f" each, but there are only {written.count} conversations"
            )
        chosen = written.chosen(order[: spec.sequences])
        return _one_each(spec, [encoder.of(each) for each in chosen], encoder)
    taken: list[_Encoded] = []
    missing = spec.sequences * spec.length
    while missing > 0 and len(taken) < written.count:
        rest = order[len(taken) :]
        for each in written.chosen(rest[: written.enough(rest, missing * CHARACTERS)]):
            taken.append(encoder.of(each))
            missing -= len(taken[-1].ids)
            if missing <= 0:
                break
    return _joined(text.name, spec, taken, encoder)


def _read(text: Text) -> Iterator[Conversation]:
    return (each for each in text.conversations() if each is not None and not each.blank)


@dataclass(frozen=True)
class _Encoded:
    """One conversation as tokens."""

    ids: np.ndarray
    """int32 [n], with BOS where it stands before every conversation."""
    bos: bool
    """Whether they begin with BOS."""
    turns: int
    typed: str
    """The first special token that somebody typed, if any."""
    example: str


class _Encoder:
    """Puts conversations into the chat template, and tokenises them."""

    def __init__(self, name: str, spec: CorpusSpec, tokenizer: PreTrainedTokenizerBase) -> None:
        """Raises `CorpusError` where BOS is asked for and there is none, or no room beside it."""
        try:
            where, self._bos = bos_at(tokenizer, spec.bos or "none", "none")
        except CorpusError as error:
            raise CorpusError(f"{name}: {error}") from None
        if where == "window" and spec.length == 1:
            raise CorpusError(f"{name}: sequences of 1 token have no room beside BOS")
        alone = spec.packing == "document"
        self._before = where == "document" or (where == "window" and alone)
        self.first = self._bos if where == "window" and not alone else None
        """The token that every sequence of joined conversations begins with."""
        self.rendering = Rendering(name, spec.chat or ChatSpec(), tokenizer)
        self._refused = spec.bos == "none"
        self._name = name
        self._tokenizer = tokenizer
        self.join = self._ids(spec.join)
        self._special = _special_tokens(tokenizer)

    def of(self, conversation: Conversation) -> _Encoded:
        """Raises `CorpusError` where the template refuses it or leaves out a message."""
        rendered = self.rendering.of(conversation)
        ids = self._ids(rendered)
        bos = self._tokenizer.bos_token_id
        begins = bos is not None and ids[:1].tolist() == [bos]
        if begins and self._refused:
            raise CorpusError(
                f"{self._name}: `bos: none`, but the chat template begins with BOS: leave `bos` out"
            )
        if self._before and not begins:
            ids, begins = np.insert(ids, 0, bos), True
        typed = self._special.search("\0".join(conversation.contents))
        return _Encoded(
            ids, begins, conversation.turns, typed[0] if typed else "", rendered[:SHOWN]
        )

    def _ids(self, text: str) -> np.ndarray:
        # Longer than the model's positions on purpose: it is cut later.
        encoded = self._tokenizer(text, add_special_tokens=False, verbose=False)
        return np.array(encoded["input_ids"], dtype=np.int32)


def _special_tokens(tokenizer: PreTrainedTokenizerBase) -> re.Pattern[str]:
    """Finds one in a text, the longest that begins there."""
    added = tokenizer.added_tokens_decoder.values()
    special = {*tokenizer.all_special_tokens, *(str(each) for each in added if each.special)}
    longest_first = sorted(special, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or "(?!)")


def _one_each(spec: CorpusSpec, taken: Sequence[_Encoded], encoder: _Encoder) -> TokenSequences:
    """The first tokens of every conversation, padded."""
    ids = np.zeros((len(taken), spec.length), dtype=np.int64)
    lengths = np.array([min(spec.length, len(each.ids)) for each in taken], dtype=np.int64)
    for row, length, each in zip(ids, lengths, taken, strict=True):
        row[:length] = each.ids[:length]
    return TokenSequences(ids, lengths, conversations=_facts(taken, encoder, inside=0))


def _joined(
    name: str,
    spec: CorpusSpec,
    taken: Sequence[_Encoded],
    encoder: _Encoder,
    draw: np.random.Generator | None = None,
) -> TokenSequences:
    """Whole sequences of all tokens one after another: the first, or some that are drawn."""
    pieces = [piece for each in taken for piece in (each.ids, encoder.join)][:-1]
    stream = np.concatenate([np.zeros(0, dtype=np.int32), *pieces])
    rows = list(_rows(stream, spec.length, encoder.first))
    if len(rows) < spec.sequences:
        raise CorpusError(
            f"{name}: the suite asks for {spec.sequences} sequences of {spec.length} tokens"
            f" ({spec.sequences * spec.length}), but the conversations have {len(stream)} tokens,"
            f" enough for {len(rows)}"
        )
    chosen = np.arange(len(rows)) if draw is None else draw.permutation(len(rows))
    chosen = np.sort(chosen[: spec.sequences])
    cut = [rows[number] for number in chosen]
    ids = np.zeros((len(cut), spec.length), dtype=np.int64)
    for row, (at, end, lead) in zip(ids, cut, strict=True):
        row[: len(lead)], row[len(lead) :] = lead, stream[at:end]
    sizes = np.array([len(each.ids) + len(encoder.join) for each in taken])
    begins = np.cumsum(sizes) - sizes
    used = len(taken) if draw is not None else int(np.searchsorted(begins, cut[-1][1]))
    inside = int((~np.isin([at for at, _, _ in cut], begins)).sum())
    return TokenSequences(
        ids,
        np.full(spec.sequences, spec.length, dtype=np.int64),
        None if draw is None else len(rows),
        _facts(taken[:used], encoder, inside),
    )


def _rows(
    stream: np.ndarray, length: int, first: int | None
) -> Iterator[tuple[int, int, list[int]]]:
    """Where each sequence begins and ends in a stream, and what stands before it.

    `first` does, unless the sequence begins with it already.
    """
    at = 0
    while at < len(stream):
        lead = [] if first is None or stream[at] == first else [first]
        end = at + length - len(lead)
        if end > len(stream):
            return
        yield at, end, lead
        at = end


def _facts(taken: Sequence[_Encoded], encoder: _Encoder, inside: int) -> ConversationFacts:
    typed = [each.typed for each in taken if each.typed]
    return ConversationFacts(
        turns=np.array([each.turns for each in taken], dtype=np.int64),
        lengths=np.array([len(each.ids) for each in taken], dtype=np.int64),
        begin_with_bos=sum(each.bos for each in taken),
        inside=inside,
        typed=len(typed),
        typed_token=typed[0] if typed else "",
        example=taken[0].example,
        unread=encoder.rendering.unread,
    )
