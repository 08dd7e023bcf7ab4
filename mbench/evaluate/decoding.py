"""Answers to many prompts, generated side by side: as many as the key-value cache has memory for.

A row that has ended makes room at once, and waiting prompts take its place. Every row gets what it
would get alone, up to the rounding of other batches; `decodes_in_rows` checks whether a model does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import cast

import torch
from transformers import PreTrainedModel

from mbench.core.batch_limit import BatchLimit, free_memory, out_of_memory
from mbench.core.evaluation import GenerationWork
from mbench.evaluate.answers import Answer, in_order
from mbench.evaluate.row_cache import RowCache
from mbench.evaluate.row_passes import one_more, read

MOST_ROWS = 256
"""Rows at a time: beyond, a step takes as much longer as it does more."""

CPU_CACHE = 2**31
"""Bytes that the cache may take where there is no GPU."""

SHARE = 0.6
"""Of a GPU's free memory that the cache and the logits may take."""

READING = 0.3
"""Of a GPU's free memory that a pass over prompts is expected to take."""

REFILL = 8
"""Rows leave, and new ones come in, once they are an eighth of all: the cache is moved for it."""

LOGITS = 16
"""Bytes for each token of the vocabulary that a row's logits take on their way."""

Choose = Callable[[torch.Tensor, Sequence[Answer]], torch.Tensor]
"""The next token of every row, int64 [rows], from logits float32 [rows, vocabulary]."""


class NotFinite(Exception):
    """The model's logits are not finite for these rows."""

    def __init__(self, answers: Sequence[Answer]) -> None:
        super().__init__()
        self.answers = tuple(answers)


@torch.no_grad()
def generate(
    model: PreTrainedModel,
    answers: Sequence[Answer],
    limit: BatchLimit,
    choose: Choose,
    advance: Callable[[int], None] = lambda tokens: None,
    work: GenerationWork | None = None,
) -> GenerationWork:
    """Fill in the tokens of all answers.

    Args:
        model: one of which `decodes_in_rows` is true.
        answers: those that have tokens already go on from them.
        limit: of the tokens of prompts in one forward pass, padding included; one may exceed it.
            It learns where memory ran out.
        choose: picks the next tokens.
        advance: told of tokens that are done, in sum prompts, but what they share only once, and
            limits of all answers.
        work: is added to, and returned; None: a new one.

    Raises:
        NotFinite: logits are not finite.
        torch.OutOfMemoryError: one row is too many.
    """
    work = work or GenerationWork()
    _Loop(model, limit, choose, advance, work).run(in_order(answers))
    return work


class _Loop:
    def __init__(
        self,
        model: PreTrainedModel,
        limit: BatchLimit,
        choose: Choose,
        advance: Callable[[int], None],
        work: GenerationWork,
    ) -> None:
        self.work = work
        self._model = model
        self._limit = limit
        self._choose = choose
        self._advance = advance
        self._rows: list[Answer] = []
        self._lengths: list[int] = []
        """Tokens of each row that the cache has."""
        self._cache: RowCache | None = None
        self._bytes_per_token: Mapping[torch.device, int] = {}
        self._begun: tuple[Sequence[int], RowCache | None] = ((), None)
        """What the prompts that were read last begin with."""
        self._reading: tuple[int, int] | None = None
        """Prompts, and tokens with padding, of a pass over them that is under way."""

    def run(self, waiting: list[Answer]) -> None:
        while True:
            self._reading = None
            try:
                self._run(waiting)
                return
            except Exception as error:
                if not out_of_memory(error) or self._least:
                    raise
                problem = type(error).__name__
            # Only here is the error gone, and with it the tensors that it held.
            self._go_on(waiting, problem)

    @property
    def _least(self) -> bool:
        """Whether nothing can be done with less memory."""
        reading = self._reading or (0, 0)
        return len(self._rows) + reading[0] < 2 and not self._begun[0]

    def _go_on(self, waiting: list[Answer], problem: str) -> None:
        """With less at a time; nothing that was generated is lost."""
        prompts, tokens = self._reading or (0, 0)
        if prompts > 1:
            self._limit.halve(tokens, problem)
            return  # the rows are as they were
        rows = len(self._rows) + prompts
        # What they have by now is read again, after their prompts.
        waiting[:0] = [row for row in self._rows if not row.over]
        self._rows, self._lengths, self._cache = [], [], None
        if rows > 1:
            self._begun = (), None
            self._limit.halve_rows(rows, problem)
        else:
            for answer in waiting:
                answer.shared = 0
            self._begun = (), None
            self._limit.stay(problem, "one prompt, goes on without what prompts share")

    def _run(self, waiting: list[Answer]) -> None:
        while waiting or self._rows:
            live = sum(not row.over for row in self._rows)
            if live < len(self._rows) and live <= len(self._rows) * (1 - 1 / REFILL):
                self._drop_ended()
            if waiting:
                most = min(self._limit.rows or MOST_ROWS, self._places([*self._rows, *waiting]))
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
        beginning = waiting[0].beginning
        if beginning != self._begun[0]:
            self._begin(beginning)
        new = self._next_prompts(waiting, free)
        tokens = [answer.read for answer in new]
        padded = len(new) * (max(map(len, tokens)) - len(beginning))
        self._reading = len(new), padded
        with self._limit.measured(padded, READING):
            logits, cache = read(self._model, tokens, self._begun[1])
            chosen = self._next(logits, new)
        self._reading = None
        self._bytes_per_token = cache.bytes_per_token
        del waiting[: len(new)]
        self._rows += new
        self._lengths += map(len, tokens)
        for answer, token in zip(new, chosen, strict=True):
            if not answer.tokens:
                self.work.begun += 1
                self.work.limits += answer.limit
                self._advance(answer.new)
            self._add(answer, token)
        # Where there is no memory to join them, they are among the rows that are read again.
        if self._cache is None:
            self._cache = cache
        else:
            self._cache.join(cache)
        self.work.prompt_tokens += sum(len(row) - len(beginning) for row in tokens)
        self.work.prompt_seconds += time.perf_counter() - start

    def _begin(self, beginning: Sequence[int]) -> None:
        """Read what the next prompts begin with; of others it is forgotten."""
        self._begun = (), None
        if beginning:
            self._reading = 1, len(beginning)
            self._begun = beginning, read(self._model, [beginning])[1]
            self._reading = None
            self._bytes_per_token = self._begun[1].bytes_per_token
            self.work.prompt_tokens += len(beginning)

    def _next_prompts(self, waiting: Sequence[Answer], free: int) -> Sequence[Answer]:
        """Of those that begin alike, as many as fit into a forward pass."""
        first = waiting[0].beginning
        longest, count = 0, 0
        for answer in waiting[:free]:
            longest = max(longest, len(answer.read) - len(first))
            if count and longest * (count + 1) > self._limit.tokens:
                break
            if answer.beginning != first:
                break
            count += 1
        return waiting[:count]

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
        self.work.ended += answer.over and len(answer.tokens) < answer.limit
        self._advance(answer.limit - len(answer.tokens) + 1 if answer.over else 1)

    def _drop_ended(self) -> None:
        """Make room for others, and forget the padding that no row needs any more."""
        left = [at for at, row in enumerate(self._rows) if not row.over]
        lengths = [self._lengths[at] for at in left]
        if left:
            assert self._cache is not None
            skip = int(self._cache.get_seq_length()) - max(lengths)
            self._cache.take(torch.tensor(left, device=self._model.device), skip)
        else:
            self._cache = None
        self._rows, self._lengths = [self._rows[at] for at in left], lengths
