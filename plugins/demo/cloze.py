"""Four-way continuation cloze: which of four pieces of the same corpus follows this context?

Items are made from the evaluation split when a task is loaded. They depend on the text alone, on no
tokenizer and no random generator: every choice is an order of sha256 hashes, so items are the same
on every machine and Python version.
"""

from __future__ import annotations

import functools
import hashlib
import heapq
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from .text import documents

if TYPE_CHECKING:
    from datasets import DatasetDict

ITEMS = 480
"""Items of each corpus; its evaluation split yields more."""
CHOICES = 4
BLOCK = 400
"""Characters of text that yield one item: items never share text."""
CONTEXT, SLACK = 40, 10
"""Characters of context, at least, and how many more there may be: about 15 tokens."""
SHORTEST, LONGEST = 16, 22
"""Characters of a continuation: about 6 to 8 tokens."""

_GAP = re.compile(r"(?<=\S) (?=\S)")
"""A single space between two words."""
_WORD_START = re.compile(r"(?<=\s)\S")


@dataclass(frozen=True)
class Item:
    """One question. `choices` follow `context` after one space; `answer` indexes the true one."""

    context: str
    choices: tuple[str, ...]
    answer: int


@dataclass(frozen=True)
class Usage:
    """How often words, and pairs of words in a row, occur in a split."""

    words: Counter[str]
    pairs: Counter[tuple[str, str]]

    def pair(self, context: str, continuation: str) -> int:
        """Occurrences of the last word of `context` with the first of `continuation` next."""
        return self.pairs[context.rsplit(maxsplit=1)[-1], continuation.split(maxsplit=1)[0]]

    def usual(self, context: str, continuation: str) -> float:
        """Share of the last word of `context` that goes on so elsewhere in the split."""
        return (self.pair(context, continuation) - 1) / self.words[context.rsplit(maxsplit=1)[-1]]


@functools.cache
def items(corpus: str, count: int = ITEMS) -> tuple[Item, ...]:
    """The first `count` items of a corpus, made once a process: a run loads a task several times.

    Distractors are the true continuations of other items, of the same length as the true one up
    to two characters: length and context-free fluency give little away. Every position holds the
    answer equally often.

    Items are such that small models can tell the choices apart, judged by counts of words in the
    split itself: a cut between two words that often follow one another, and no distractor with a
    first word that ever follows the context's last one.
    """
    texts = documents(corpus, "evaluation")
    words = [text.split() for text in texts]
    usage = Usage(
        Counter(word for text in words for word in text),
        Counter(pair for text in words for pair in pairwise(text)),
    )
    spots = [spot for text in texts for spot in _spots(text, usage)]
    spots = sorted(dict.fromkeys(spots), key=lambda spot: _hash("spot", *spot))
    pool: dict[tuple[int, str], list[str]] = {}
    for continuation in dict.fromkeys(continuation for _, continuation in spots):
        key = (len(continuation), continuation.split(maxsplit=1)[0])
        pool.setdefault(key, []).append(continuation)
    questions = []
    for context, truth in spots:
        wrong = _distractors(truth, pool, context, usage)
        if len(wrong) == CHOICES - 1:
            questions.append((context, truth, wrong))
        if len(questions) == count:
            break
    else:
        raise ValueError(f"{corpus} yields {len(questions)} cloze items, not {count}")
    order = sorted(range(count), key=lambda number: _hash("position", *questions[number][:2]))
    answer = {number: rank % CHOICES for rank, number in enumerate(order)}
    made: list[Item] = []
    for number, (context, truth, wrong) in enumerate(questions):
        choices = [*wrong[: answer[number]], truth, *wrong[answer[number] :]]
        made.append(Item(context, tuple(choices), answer[number]))
    return tuple(made)


def dataset(corpus: str, **_: Any) -> DatasetDict:
    """The items as lm-eval wants them; for `custom_dataset` in a task file.

    Args:
        corpus: one of CORPORA, from the task file's `dataset_kwargs`.
        **_: the task's metadata, which lm-eval passes along.
    """
    from datasets import Dataset, DatasetDict

    rows = [
        {"context": item.context, "choices": list(item.choices), "answer": item.answer}
        for item in items(corpus)
    ]
    return DatasetDict({"test": Dataset.from_list(rows)})


def _spots(text: str, usage: Usage) -> Iterator[tuple[str, str]]:
    """At most one (context, continuation) for every BLOCK characters of a document.

    Of all places in a block, the first of those with the most usual next word.
    """
    for begin in range(0, len(text) - BLOCK + 1, BLOCK):
        candidates = list(_candidates(text[begin : begin + BLOCK]))
        if candidates:
            yield max(candidates, key=lambda spot: usage.usual(*spot))


def _candidates(block: str) -> Iterator[tuple[str, str]]:
    """Every (context, continuation) in a block."""
    for gap in _GAP.finditer(block, CONTEXT + SLACK):
        cut = gap.start()
        if cut >= BLOCK - LONGEST:
            return
        start = _WORD_START.search(block, cut - CONTEXT - SLACK, cut - CONTEXT)
        continuation = _continuation(block[cut + 1 :])
        if start is not None and continuation:
            yield block[start.start() : cut], continuation


def _continuation(text: str) -> str | None:
    """Whole words from the start of `text`, of allowed length and within its line, if any."""
    line = text.split("\n")[0][: LONGEST + 1]
    for end in range(SHORTEST, LONGEST + 1):
        if end < len(text) and end <= len(line) and text[end].isspace():
            return line[:end]
    return None


def _distractors(
    truth: str, pool: Mapping[tuple[int, str], list[str]], context: str, usage: Usage
) -> list[str]:
    """Continuations of other spots like `truth` in length, the first three in hash order.

    `pool` has them by length and first word. None begins with a word that follows the context's
    last word anywhere in the split.
    """
    last = context.rsplit(maxsplit=1)[-1]
    alike = [
        other
        for (length, first), others in pool.items()
        if abs(length - len(truth)) <= 2 and (last, first) not in usage.pairs
        for other in others
        if other.lower() != truth.lower()
    ]
    begun = hashlib.sha256("\0".join(("distractor", context, "")).encode())

    def order(other: str) -> bytes:
        whole = begun.copy()
        whole.update(other.encode())
        return whole.digest()

    return heapq.nsmallest(CHOICES - 1, alike, key=order)


def _hash(*parts: str) -> bytes:
    return hashlib.sha256("\0".join(parts).encode()).digest()
