"""Answers to many prompts, generated side by side: as many as the key-value cache has memory for.

A row that has ended makes room at once, and waiting prompts take its place. Every row gets what it
would get alone, up to the rounding of other batches; `decodes_in_rows` checks whether a model does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import torch
from transformers import PreTrainedModel

from mbench.core.batch_limit import free_memory, out_of_memory
from mbench.core.evaluation import GenerationWork
from mbench.evaluate.row_cache import RowCache
from mbench.evaluate.row_passes import one_more, read

MOST_ROWS = 256
"""Rows at a time: beyond, a step takes as much longer as it does more."""

CPU_CACHE = 2**31
"""Bytes that the cache may take where there is no GPU."""

SHARE = 0.6
"""Of a GPU's free memory that the cache and the logits may take."""

REFILL = 8
"""Rows leave, and new ones come in, once they are an eighth of all: the cache is moved for it."""

LOGITS = 16
"""Bytes for each token of the vocabulary that a row's logits take on their way."""

Choose = Callable[[torch.Tensor, Sequence["Answer"]], torch.Tensor]
"""The next token of every row, int64 [rows], from logits float32 [rows, vocabulary]."""


@dataclass
class Answer:
    """A prompt, and what has been generated for it so far."""

    prompt: Sequence[int]
    limit: int
    """Most tokens."""
    ended: Callable[[Sequence[int]], bool]
    """Whether the tokens are a whole answer, asked after each one."""
    tokens: list[int] = field(default_factory=list)
    over: bool = False
    """Whether nothing is left to generate."""

    def add(self, token: int) -> None:
        """One token more."""
        self.tokens.append(token)
        self.over = len(self.tokens) >= self.limit or self.ended(self.tokens)


class NotFinite(Exception):
    """The model's logits are not finite for these rows."""

    def __init__(self, answers: Sequence[Answer]) -> None:
        super().__init__()
        self.answers = tuple(answers)


@torch.no_grad()
def generate(
    model: PreTrainedModel,
    answers: Sequence[Answer],
    batch_tokens: int,
    choose: Choose,
    advance: Callable[[int], None] = lambda tokens: None,
    work: GenerationWork | None = None,
) -> GenerationWork:
    """Fill in the tokens of all answers.

    Args:
        model: one of which `decodes_in_rows` is true.
        answers: those that have tokens already go on from them.
        batch_tokens: tokens of prompts in one forward pass, padding included; one may exceed it.
        choose: picks the next tokens.
        advance: told of tokens that are done, in sum prompts and limits of all answers.
        work: is added to, and returned; None: a new one.

    Raises:
        NotFinite: logits are not finite.
        torch.OutOfMemoryError: one row is too many.
    """
    work = work or GenerationWork()
    loop = _Loop(model, batch_tokens, choose, advance, work)
    loop.run(sorted(answers, key=lambda answer: -len(answer.prompt)))
    return work


class _Loop:
    def __init__(
        self,
        model: PreTrainedModel,
        batch_tokens: int,
        choose: Choose,
        advance: Callable[[int], None],
        work: GenerationWork,
    ) -> None:
        self.work = work
        self._model = model
        self._batch_tokens = batch_tokens
        self._choose = choose
        self._advance = advance
        self._rows: list[Answer] = []
        self._lengths: list[int] = []
        """Tokens of each row that the cache has."""
        self._cache: RowCache | None = None
        self._bytes_per_token: Mapping[torch.device, int] = {}
        self._most = MOST_ROWS
        self._reading: tuple[int, int] | None = None
        """Prompts, and tokens with padding, of a pass over them that is under way."""

    def run(self, waiting: list[Answer]) -> None:
        while waiting or self._rows:
            try:
                self._run(waiting)
            except Exception as error:
                if not out_of_memory(error):
                    raise
                if self._reading is not None and self._reading[0] > 1:
                    self._batch_tokens = self._reading[1] // 2
                    continue  # the rows are as they were
                rows = len(self._rows) + (self._reading is not None)
                if rows == 1:
                    raise
                self._most = rows // 2
            # What they have by now is read again, after their prompts.
            waiting[:0] = [row for row in self._rows if not row.over]
            self._rows, self._lengths, self._cache = [], [], None

    def _run(self, waiting: list[Answer]) -> None:
        self._reading = None
        while waiting or self._rows:
            live = sum(not row.over for row in self._rows)
            if live < len(self._rows) and live <= len(self._rows) * (1 - 1 / REFILL):
                self._drop_ended()
            if waiting:
                most = min(self._most, self._places([*self._rows, *waiting]))
                free = most - len(self._rows)
                if free >= min(max(1, most // REFILL), len(waiting)):
                    self._admit(waiting, free)
                    continue
            if self._rows:
                self._step()

    def _places(self, answers: Sequence[Answer]) -> int:
        """Rows that every device has memory for, were all as long as the longest may get."""
        if not self._bytes_per_token:  # not known before the first prompt was read
            return 1
        longest = max(len(answer.prompt) + answer.limit for answer in answers)
        vocabulary = next(self._model.get_output_embeddings().parameters()).shape[0]
        places = MOST_ROWS
        for device, of_a_token in self._bytes_per_token.items():
            memory: float = CPU_CACHE
            if device.type == "cuda":
                held = sum(self._lengths) * of_a_token
                memory = SHARE * (free_memory(device) + held)
            places = min(places, int(memory // (longest * of_a_token + LOGITS * vocabulary)))
        return max(1, places)

    def _admit(self, waiting: list[Answer], free: int) -> None:
        """Read the next prompts, as many as fit into a forward pass, and join them to the rows."""
        start = time.perf_counter()
        count = 1
        longest = _read(waiting[0])
        while count < min(free, len(waiting)):
            longest = max(longest, _read(waiting[count]))
            if longest * (count + 1) > self._batch_tokens:
                break
            count += 1
        new = waiting[:count]
        tokens = [[*answer.prompt, *answer.tokens] for answer in new]
        cache = RowCache()
        self._reading = (count, count * max(map(len, tokens)))
        logits = read(self._model, cache, tokens)
        chosen = self._next(logits, new)
        self._reading = None
        self._bytes_per_token = cache.bytes_per_token
        del waiting[:count]
        self._rows += new
        self._lengths += map(len, tokens)
        for answer, token in zip(new, chosen, strict=True):
            self._advance(0 if answer.tokens else len(answer.prompt))
            self._add(answer, token)
        # Where there is no memory to join them, they are among the rows that are read again.
        if self._cache is None:
            self._cache = cache
        else:
            self._cache.join(cache)
        self.work.prompt_tokens += sum(map(len, tokens))
        self.work.prompt_seconds += time.perf_counter() - start

    def _step(self) -> None:
        """One token more for every row; what rows get that are over is not looked at."""
        start = time.perf_counter()
        assert self._cache is not None
        last = [row.tokens[-1] for row in self._rows]
        # Those that are over go no further: some models turn all positions by the furthest one.
        positions = [
            0 if row.over else length for row, length in zip(self._rows, self._lengths, strict=True)
        ]
        logits = one_more(self._model, self._cache, last, self._lengths, positions)
        self._lengths = [length + 1 for length in self._lengths]
        live = [row for row in self._rows if not row.over]
        for row, token in zip(self._rows, self._next(logits, self._rows), strict=True):
            if not row.over:
                self._add(row, token)
        self.work.steps += 1
        self.work.answer_tokens += len(live)
        self.work.answer_seconds += time.perf_counter() - start

    def _next(self, logits: torch.Tensor, rows: Sequence[Answer]) -> list[int]:
        """The next tokens; the device is waited for once."""
        chosen = self._choose(logits.float(), rows)
        finite = logits.isfinite().all(-1).to(chosen.dtype)
        tokens, told = torch.stack([chosen, finite]).tolist()
        wrong = [row for row, fine in zip(rows, told, strict=True) if not (fine or row.over)]
        if wrong:
            raise NotFinite(wrong)
        return cast(list[int], tokens)

    def _add(self, answer: Answer, token: int) -> None:
        answer.add(token)
        self._advance(answer.limit - len(answer.tokens) + 1 if answer.over else 1)

    def _drop_ended(self) -> None:
        """Make room for others, and forget the padding that no row needs any more."""
        left = [at for at, row in enumerate(self._rows) if not row.over]
        self._rows = [self._rows[at] for at in left]
        self._lengths = [self._lengths[at] for at in left]
        if not left:
            self._cache = None
            return
        assert self._cache is not None
        skip = int(self._cache.get_seq_length()) - max(self._lengths)
        self._cache.take(torch.tensor(left, device=self._model.device), skip)


def _read(answer: Answer) -> int:
    """Tokens of a row by now."""
    return len(answer.prompt) + len(answer.tokens)
