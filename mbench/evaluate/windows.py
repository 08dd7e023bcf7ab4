"""A text as tokens with the bytes that each stands for, and the windows that a model reads of it.

Bytes: a token stands for the text from the end of the tokens before it to its own end. So text that
the tokenizer drops counts for the next token (at the end of a text, for the last one), and a
character of several tokens counts for the first of them. The bytes of all tokens are thus exactly
the text's length in UTF-8. If a tokenizer gives no offsets, the bytes are distributed evenly.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mbench.core.errors import CorpusError
from mbench.core.suite import PerplexityTask
from mbench.moe.tokenizer import bos_at

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Tokens:
    """One text."""

    ids: np.ndarray
    """int64 [n], with BOS where it stands inside the text."""
    size: np.ndarray
    """int64 [n], bytes that each token stands for; 0 for BOS."""
    is_bos: np.ndarray
    """bool [n], tokens that are no part of the text: they are read and not predicted."""


@dataclass(frozen=True)
class Window:
    """Tokens `start` to `stop` of a text, of which the last `scored` are predicted."""

    text: int
    start: int
    stop: int
    scored: int


@dataclass(frozen=True)
class Windows:
    """Texts, and what is read of them."""

    texts: tuple[Tokens, ...]
    windows: tuple[Window, ...]
    bos: int | None
    """The token that every window begins with, before its own; None: they have only their own."""

    def read(self, window: Window) -> int:
        """Tokens that go through the model: all but the last."""
        return window.stop - window.start - 1 + (self.bos is not None)

    @property
    def begin_with_bos(self) -> int:
        """Windows whose first token is BOS."""
        if self.bos is not None:
            return len(self.windows)
        return sum(bool(self.texts[w.text].is_bos[w.start]) for w in self.windows)


def windows_of(
    name: str,
    spec: PerplexityTask,
    documents: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
) -> Windows:
    """Tokenise the documents and lay out the windows; see `PerplexityTask`.

    Raises `CorpusError` if there is too little text, or no BOS token where it is asked for.
    """
    where, bos = bos_at(tokenizer, spec.bos, "text" if spec.protocol == "gptq" else "window")
    begin = bos if where == "window" else None
    inside = None if where == "window" else bos
    if spec.protocol == "document":
        pieces = [[document] for document in documents]
    elif where == "document":
        last = len(documents) - 1
        pieces = [[text + spec.join * (at < last) for at, text in enumerate(documents)]]
    else:
        pieces = [[spec.join.join(documents)]]
    texts = tuple(_tokens(text, tokenizer, inside) for text in pieces)
    windows = [
        window
        for number, text in enumerate(texts)
        for window in lay_out(spec, number, len(text.ids), begun=begin is not None)
        if not text.is_bos[window.stop - window.scored : window.stop].all()
    ][: spec.max_windows]
    if not windows:
        tokens = sum(len(text.ids) for text in texts)
        needed = "2 in one document" if spec.protocol == "document" else f"{spec.window}"
        raise CorpusError(
            f"perplexity {name!r}: the text has {tokens} tokens, but one window needs at least"
            f" {needed}"
        )
    return Windows(texts, tuple(windows), begin)


def lay_out(spec: PerplexityTask, number: int, count: int, *, begun: bool) -> Iterator[Window]:
    """The windows of one text of `count` tokens; with `begun`, BOS is read before each."""
    size = spec.window - begun
    if spec.protocol == "document":
        for start in range(0, count if begun else count - 1, spec.window):
            stop = min(start + spec.window + (not begun), count)
            yield Window(number, start, stop, stop - start - (not begun))
    elif spec.protocol == "gptq":
        for stop in range(size, count + 1, size):
            yield Window(number, stop - size, stop, spec.window - 1)
    elif count >= size:
        assert spec.stride is not None
        scored_up_to = 0 if begun else 1
        for start in range(0, count, spec.stride):
            stop = min(start + size, count)
            yield Window(number, start, stop, stop - scored_up_to)
            scored_up_to = stop
            if stop == count:
                break


def _tokens(pieces: Sequence[str], tokenizer: PreTrainedTokenizerBase, bos: int | None) -> Tokens:
    """Pieces of one text, tokenised one by one; BOS stands before each that is not blank."""
    ids: list[np.ndarray] = []
    sizes: list[np.ndarray] = []
    is_bos: list[np.ndarray] = []
    for piece in pieces:
        if bos is not None and (piece.strip() or len(pieces) == 1):
            ids.append(np.array([bos]))
            sizes.append(np.array([0]))
            is_bos.append(np.array([True]))
        piece_ids, piece_sizes = tokenise(piece, tokenizer)
        ids.append(piece_ids)
        sizes.append(piece_sizes)
        is_bos.append(np.zeros(len(piece_ids), dtype=bool))
    return Tokens(
        np.concatenate(ids).astype(np.int64),
        np.concatenate(sizes).astype(np.int64),
        np.concatenate(is_bos),
    )


def tokenise(text: str, tokenizer: PreTrainedTokenizerBase) -> tuple[np.ndarray, np.ndarray]:
    """Token ids int64 [n] and the bytes that each stands for int64 [n]; no special tokens.

    See the module's docstring.
    """
    encoded = tokenizer(
        text, add_special_tokens=False, return_offsets_mapping=tokenizer.is_fast, verbose=False
    )
    ids = encoded["input_ids"]
    width = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
    ends_of_characters = np.concatenate(
        [[0], np.cumsum(1 + (width > 0x7F) + (width > 0x7FF) + (width > 0xFFFF))]
    ).astype(np.int64)
    if tokenizer.is_fast:
        ends = np.array([stop for _, stop in encoded["offset_mapping"]], dtype=np.int64)
        ends = ends_of_characters[np.maximum.accumulate(ends)]
    else:
        ends = ends_of_characters[-1] * np.arange(1, len(ids) + 1) // max(1, len(ids))
    ends[-1:] = ends_of_characters[-1]
    return np.array(ids, dtype=np.int64), np.diff(ends, prepend=0).astype(np.int64)
