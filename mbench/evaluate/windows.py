"""The windows that a model reads of a text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from mbench.core.errors import CorpusError
from mbench.core.suite import PerplexityTask
from mbench.evaluate.documents import Documents, Kind, documents_at
from mbench.moe.tokenizer import bos_at
from mbench.moe.tokens import ended_by, joined_by, tokens_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


JOINED = 2**23
"""Tokens of a long text that are joined before the rest is known: arrays of 32 MiB and more go back
to the system when they are freed, and so are not held beside what they are joined to."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """One text."""

    ids: np.ndarray
    """int32 [n], with BOS where it stands inside the text."""
    size: np.ndarray
    """int32 [n], bytes that each token stands for (see `mbench.moe.tokens`); 0 for BOS."""
    is_bos: np.ndarray
    """bool [n], tokens that are no part of the text: they are read and not predicted."""
    begin: np.ndarray
    """[n] where each token begins, in bytes of all that was read: uint32, or int64 beyond 4 GB."""


@dataclass(frozen=True, slots=True)
class Window:
    """Tokens `start` to `stop` of a text, of which the last `scored` are predicted."""

    text: int
    start: int
    stop: int
    scored: int


@dataclass(frozen=True, slots=True)
class Row:
    """Tokens `start` to `stop` of a text: what a window scores of one document."""

    window: int
    text: int
    start: int
    stop: int
    document: int
    """Its number in the order of the text, from 0."""


@dataclass(frozen=True)
class Windows:
    """Texts, and what is read of them."""

    texts: tuple[Tokens, ...]
    windows: tuple[Window, ...]
    rows: tuple[Row, ...]
    """In the order of the windows, so that no document is split between rows of a window."""
    bos: int | None
    """The token that every window begins with, before its own; None: they have only their own."""
    kind: Kind
    """What its documents are."""

    @property
    def documents(self) -> int:
        """How many documents the scored tokens lie in."""
        return len({row.document for row in self.rows})

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

    No more is tokenised than the first `max_windows`, or `windows_per_document` of each, need.
    Raises `CorpusError` if there is too little text, or no BOS token where it is asked for.
    """
    where, bos = bos_at(tokenizer, spec.bos, "text" if spec.protocol == "gptq" else "window")
    begin = bos if where == "window" else None
    inside = None if where == "window" else bos
    noted = Documents(spec.documents, "" if spec.protocol == "document" else spec.join)
    texts: list[Tokens] = []
    windows: list[Window] = []
    for pieces in _texts(spec, noted.read(documents), where):
        stream = _tokens(pieces, tokenizer, inside, noted)
        most = math.inf if spec.max_windows is None else spec.max_windows - len(windows)
        asked = min(most, spec.windows_per_document or math.inf)
        text, found = _begun(stream, spec, len(texts), asked, begun=begin is not None)
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
    read = tuple(windows[: spec.max_windows])
    return Windows(tuple(texts), read, tuple(_rows(texts, read, noted)), begin, noted.found)


def lay_out(spec: PerplexityTask, number: int, count: int, *, begun: bool) -> Iterator[Window]:
    """The windows of one text of `count` tokens; with `begun`, BOS is read before each."""
    size = spec.window - begun
    if spec.protocol == "document":
        starts = range(0, count if begun else count - 1, spec.window)
        for start in starts[: spec.windows_per_document]:
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


def _rows(texts: Sequence[Tokens], windows: Sequence[Window], noted: Documents) -> Iterator[Row]:
    """The scored tokens of every window, those of each document by themselves."""
    begins = noted.begins
    numbers: dict[int, int] = {}
    for number, window in enumerate(windows):
        start, text = window.stop - window.scored, window.text
        scored = documents_at(texts[text].begin[start : window.stop], begins)
        # BOS before a document is not scored: it begins no row.
        ends = np.flatnonzero(np.diff(scored)) + 1
        for low, high in pairwise([0, *ends.tolist(), len(scored)]):
            if not texts[text].is_bos[start + low : start + high].all():
                document = numbers.setdefault(int(scored[low]), len(numbers))
                yield Row(number, text, start + low, start + high, document)


@dataclass(frozen=True)
class _Piece:
    """What is tokenised by itself: a record, or a whole text."""

    begins: bool
    """Whether BOS stands before it if it stands inside texts."""
    parts: Iterable[str]
    record: int
    """Its first record."""


def _texts(
    spec: PerplexityTask, documents: Iterable[Iterable[str]], where: str
) -> Iterator[Iterator[_Piece]]:
    """The pieces of each text."""
    if spec.protocol == "document":
        yield from (iter([_Piece(True, text, at)]) for at, text in enumerate(documents))
    elif where == "document":
        ended = enumerate(ended_by(spec.join, documents))
        yield (_Piece(bool(text.strip()), (text, join), at) for at, (text, join) in ended)
    else:
        yield iter([_Piece(True, joined_by(spec.join, documents), 0)])


def _begun(
    stream: Iterator[Tokens], spec: PerplexityTask, number: int, most: float, *, begun: bool
) -> tuple[Tokens, list[Window]]:
    """A text as far as its first `most` windows need it, and windows of it, at least these."""
    whole = spec.window + (spec.protocol == "document") - begun
    none = np.zeros(0, np.int32)
    read = [Tokens(none, none, np.zeros(0, bool), np.zeros(0, np.uint32))]
    recent: list[Tokens] = []
    count, joined, enough = 0, 0, most * (spec.window + 1)
    while True:
        ended = True
        for tokens in stream:
            recent.append(tokens)
            count += len(tokens.ids)
            if count - joined >= JOINED:
                read.append(_joined(recent))
                joined = count
            if count >= enough:
                ended = False
                break
        read += recent
        recent.clear()
        text = _joined(read)
        read, joined = [text], count
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


def _joined(read: list[Tokens]) -> Tokens:
    """One text; the list is emptied, so that no more than one array is held twice."""
    fields = [[t.ids for t in read], [t.size for t in read]]
    fields += [[t.is_bos for t in read], [t.begin for t in read]]
    read.clear()
    arrays = []
    for parts in fields:
        arrays.append(np.concatenate(parts))
        parts.clear()
    return Tokens(*arrays)


def _tokens(
    pieces: Iterator[_Piece],
    tokenizer: PreTrainedTokenizerBase,
    bos: int | None,
    noted: Documents,
) -> Iterator[Tokens]:
    """Pieces of one text, tokenised one by one."""
    for piece in pieces:
        position = None
        for tokens in tokens_of(piece.parts, tokenizer):
            if position is None:
                position = noted.begin_of(piece.record)
                if bos is not None and piece.begins:
                    yield _one_bos(bos, position)
            size = tokens.size
            begin = _places(position + np.cumsum(size) - size)
            none = np.zeros(len(tokens.ids), bool)
            yield Tokens(tokens.ids.astype(np.int32), size.astype(np.int32), none, begin)
            position += int(size.sum())


def _one_bos(bos: int, position: int) -> Tokens:
    ids, size = np.array([bos], np.int32), np.zeros(1, np.int32)
    return Tokens(ids, size, np.ones(1, bool), _places(np.array([position])))


def _places(begin: np.ndarray) -> np.ndarray:
    """int64 [n], rising, in fewer bytes if they allow it."""
    return begin.astype(np.uint32) if begin[-1:].max(initial=0) < 2**32 else begin
