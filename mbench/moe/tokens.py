"""A text as tokens, with the bytes that each stands for; a long one in pieces.

Bytes: a token stands for the text from the end of the tokens before it to its own end. So text that
the tokenizer drops counts for the next token (at the end of a text, for the last one), and a
character of several tokens counts for the first of them. The bytes of all tokens are thus exactly
the text's length in UTF-8. If a tokenizer gives no offsets, the bytes are distributed evenly.

Pieces: they overlap, and are cut in the middle of an overlap where both have the same tokens all
around. What stands beyond an overlap then decided nothing on its other side, so that the tokens are
those of the whole text. Where two pieces differ they become one. Texts of up to `WHOLE` characters
are one piece, as are those of a tokenizer that gives no offsets.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

WHOLE = 2**21
"""Characters up to which a text is not cut."""

PIECE = 2**18
"""Characters of a piece of a longer one, at least."""

OVERLAP = 2**14
"""Characters from a cut to the end of either piece; both have the same tokens in its inner half."""


@dataclass(frozen=True)
class Tokens:
    """Tokens in their order."""

    ids: np.ndarray
    """int64 [n]."""
    size: np.ndarray
    """int64 [n], bytes that each token stands for."""


def tokenise(text: str, tokenizer: PreTrainedTokenizerBase) -> Tokens:
    """The tokens of a whole text, without special tokens."""
    return _encoded(text, tokenizer).tokens


def tokens_of(parts: Iterable[str], tokenizer: PreTrainedTokenizerBase) -> Iterator[Tokens]:
    """The tokens of a text that comes in parts, which are read as far as the next tokens need them.

    All that is given, one after another, equals `tokenise` of the parts joined (see above).
    """
    rest = iter(parts)
    text, ended = _longer("", rest, WHOLE if tokenizer.is_fast else math.inf)
    if not ended:
        rest = _shorter(chain([text], rest))
        text, ended = _longer("", rest, PIECE)
    piece, begin, by = _encoded(text, tokenizer), 0, PIECE
    while not ended:
        cut = len(text) - OVERLAP
        # Where the next piece begins in this one.
        shift = max(0, cut - OVERLAP)
        longer, ended = _longer(text[shift:], rest, by)
        following = _encoded(longer, tokenizer)
        if _agree(piece, following, shift, cut):
            yield piece.between(begin, cut)
            text, piece, begin, by = longer, following, cut - shift, PIECE
        else:
            # Twice as much each time, or a text that is nowhere cut would be read for ever.
            text, by = text[:shift] + longer, 2 * by
            piece = _encoded(text, tokenizer)
    yield piece.between(begin, None)


def _longer(text: str, rest: Iterator[str], by: float) -> tuple[str, bool]:
    """A text with so many more characters at least, and whether there were no more."""
    parts, missing = [text], by
    for part in rest:
        parts.append(part)
        missing -= len(part)
        if missing <= 0:
            return "".join(parts), False
    return "".join(parts), True


def _shorter(parts: Iterable[str]) -> Iterator[str]:
    """The same text in parts of at most `PIECE` characters."""
    for part in parts:
        yield from (part[at : at + PIECE] for at in range(0, len(part), PIECE))


@dataclass(frozen=True)
class _Piece:
    """Tokens, and the characters of the piece that each stands for."""

    tokens: Tokens
    starts: np.ndarray
    """int64 [n], never falling."""
    ends: np.ndarray

    def between(self, start: int, stop: int | None) -> Tokens:
        """The tokens that begin at these characters; all from `start` on without `stop`."""
        first = 0 if start == 0 else np.searchsorted(self.starts, start)
        last = None if stop is None else np.searchsorted(self.starts, stop)
        return Tokens(self.tokens.ids[first:last], self.tokens.size[first:last])


def _encoded(text: str, tokenizer: PreTrainedTokenizerBase) -> _Piece:
    encoded = tokenizer(
        # Longer than the model's positions on purpose: what is read of it is cut later.
        text,
        add_special_tokens=False,
        return_offsets_mapping=tokenizer.is_fast,
        verbose=False,
    )
    ids = np.array(encoded["input_ids"], dtype=np.int64)
    width = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
    bytes_before = np.zeros(len(text) + 1, dtype=np.int64)
    np.cumsum(1 + (width > 0x7F) + (width > 0x7FF) + (width > 0xFFFF), out=bytes_before[1:])
    starts = ends = np.zeros(0, dtype=np.int64)
    if tokenizer.is_fast:
        offsets = np.array(encoded["offset_mapping"], dtype=np.int64).reshape(-1, 2)
        starts, ends = np.maximum.accumulate(offsets, axis=0).T
        ends_in_bytes = bytes_before[ends]
    else:
        ends_in_bytes = bytes_before[-1] * np.arange(1, len(ids) + 1) // max(1, len(ids))
    ends_in_bytes[-1:] = bytes_before[-1]
    return _Piece(Tokens(ids, np.diff(ends_in_bytes, prepend=0)), starts, ends)


def _agree(piece: _Piece, following: _Piece, shift: int, cut: int) -> bool:
    """Whether two pieces, of which one begins `shift` later, have the same tokens around a cut."""
    low, high = cut - OVERLAP // 2, cut + OVERLAP // 2
    both = []
    for each, by in ((piece, 0), (following, shift)):
        inside = slice(*np.searchsorted(each.starts + by, [low, high]))
        places = (each.tokens.ids, each.starts + by, each.ends + by)
        both.append(np.stack([values[inside] for values in places]))
    one, other = both
    return one.shape[1] > 0 and np.array_equal(one, other)


def joined_by(join: str, documents: Iterable[Iterable[str]]) -> Iterator[str]:
    """Documents, each in parts, as one text in parts."""
    for number, document in enumerate(documents):
        if number:
            yield join
        yield from document


def ended_by(join: str, documents: Iterable[Iterable[str]]) -> Iterator[tuple[str, str]]:
    """Each document, with what stands between it and the next: nothing after the last."""
    before: str | None = None
    for document in documents:
        if before is not None:
            yield before, join
        before = "".join(document)
    if before is not None:
        yield before, ""
