"""The windows that a model reads of a text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mbench.core.errors import CorpusError
from mbench.core.suite import PerplexityTask
from mbench.moe.tokenizer import bos_at
from mbench.moe.tokens import ended_by, joined_by, tokens_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Tokens:
    """One text."""

    ids: np.ndarray
    """int64 [n], with BOS where it stands inside the text."""
    size: np.ndarray
    """int64 [n], bytes that each token stands for (see `mbench.moe.tokens`); 0 for BOS."""
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
    documents: Iterable[Iterable[str]],
    tokenizer: PreTrainedTokenizerBase,
) -> Windows:
    """Tokenise the documents, each in parts, and lay out the windows; see `PerplexityTask`.

    No more is read than the first `max_windows` need. Raises `CorpusError` if there is too little
    text, or no BOS token where it is asked for.
    """
    where, bos = bos_at(tokenizer, spec.bos, "text" if spec.protocol == "gptq" else "window")
    begin = bos if where == "window" else None
    inside = None if where == "window" else bos
    texts: list[Tokens] = []
    windows: list[Window] = []
    for pieces in _texts(spec, documents, where):
        stream = _tokens(pieces, tokenizer, inside)
        most = math.inf if spec.max_windows is None else spec.max_windows - len(windows)
        text, found = _begun(stream, spec, len(texts), most, begun=begin is not None)
        texts.append(text)
        windows += found
        if len(found) >= most:
            break
    if not windows:
        tokens = sum(len(text.ids) for text in texts)
        needed = "2 in one document" if spec.protocol == "document" else f"{spec.window}"
        raise CorpusError(
            f"perplexity {name!r}: the text has {tokens} tokens, but one window needs at least"
            f" {needed}"
        )
    return Windows(tuple(texts), tuple(windows[: spec.max_windows]), begin)


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


def _texts(
    spec: PerplexityTask, documents: Iterable[Iterable[str]], where: str
) -> Iterator[Iterator[tuple[bool, Iterable[str]]]]:
    """The pieces of each text, in parts, after whether BOS stands before them if it is inside."""
    if spec.protocol == "document":
        yield from (iter([(True, document)]) for document in documents)
    elif where == "document":
        ended = ended_by(spec.join, documents)
        yield ((bool(document.strip()), (document, join)) for document, join in ended)
    else:
        yield iter([(True, joined_by(spec.join, documents))])


def _begun(
    stream: Iterator[Tokens], spec: PerplexityTask, number: int, most: float, *, begun: bool
) -> tuple[Tokens, list[Window]]:
    """A text as far as its first `most` windows need it, and windows of it, at least these."""
    whole = spec.window + (spec.protocol == "document") - begun
    read = [Tokens(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, bool))]
    count, enough = 0, most * (spec.window + 1)
    while True:
        ended = True
        for tokens in stream:
            read.append(tokens)
            count += len(tokens.ids)
            if count >= enough:
                ended = False
                break
        text = Tokens(
            np.concatenate([tokens.ids for tokens in read]),
            np.concatenate([tokens.size for tokens in read]),
            np.concatenate([tokens.is_bos for tokens in read]),
        )
        windows = [
            window
            for window in lay_out(spec, number, count, begun=begun)
            # What seems to be a shorter last window may go on.
            if (ended or window.stop - window.start == whole)
            and not text.is_bos[window.stop - window.scored : window.stop].all()
        ]
        if ended or len(windows) >= most:
            return text, windows
        enough *= 2


def _tokens(
    pieces: Iterator[tuple[bool, Iterable[str]]],
    tokenizer: PreTrainedTokenizerBase,
    bos: int | None,
) -> Iterator[Tokens]:
    """Pieces of one text, tokenised one by one."""
    for begins, parts in pieces:
        if bos is not None and begins:
            yield Tokens(np.array([bos]), np.zeros(1, np.int64), np.ones(1, bool))
        for tokens in tokens_of(parts, tokenizer):
            yield Tokens(tokens.ids, tokens.size, np.zeros(len(tokens.ids), bool))
