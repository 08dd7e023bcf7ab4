"""Answers to many prompts, generated side by side: as many as the key-value cache has memory for.

A row that has ended makes room at once, and waiting prompts take its place. Every row gets what it
would get alone, up to the rounding of other batches; `decodes_in_rows` checks whether a model does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import cast

import torch
from transformers import PreTrainedModel

from mbench.core.batch_limit import free_memory, out_of_memory
from mbench.core.evaluation import GenerationWork
from mbench.evaluate.lm_head import equal_to_rounding
from mbench.evaluate.row_cache import RowCache

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

NOISE = 0.2
"""Of the logits' spread, what the rounding of 16 bits is taken for: in a model of 48 layers it is a
few hundredths, and what tokens do that a row should not see is about 1."""

CHECKED = 48
"""Tokens of a prompt on which a model is checked."""

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
        self._bytes_per_token = 0
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
        """Rows that there is memory for, were all as long as the longest may get."""
        device = self._model.device
        if not self._bytes_per_token:  # not known before the first prompt was read
            return 1
        longest = max(len(answer.prompt) + answer.limit for answer in answers)
        vocabulary = next(self._model.get_output_embeddings().parameters()).shape[0]
        of_a_row = longest * self._bytes_per_token + LOGITS * vocabulary
        memory: float = CPU_CACHE
        if device.type == "cuda":
            held = sum(self._lengths) * self._bytes_per_token
            memory = SHARE * (free_memory(device) + held)
        return max(1, int(memory // of_a_row))

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
        logits = _forward(self._model, cache, *_left_padded(tokens, self._model.device))
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
        logits = _one_more(self._model, self._cache, last, self._lengths, positions)
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


def _left_padded(
    rows: Sequence[Sequence[int]], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Token ids, attention mask and positions, int64 [rows, length]."""
    length = max(map(len, rows))
    ids = torch.zeros(len(rows), length, dtype=torch.long)
    mask = torch.zeros_like(ids)
    positions = torch.zeros_like(ids)
    for line, row in enumerate(rows):
        start = length - len(row)
        ids[line, start:] = torch.tensor(row)
        mask[line, start:] = 1
        positions[line, start:] = torch.arange(len(row))
    return ids.to(device), mask.to(device), positions.to(device)


def _one_more(
    model: PreTrainedModel,
    cache: RowCache,
    tokens: Sequence[int],
    lengths: Sequence[int],
    positions: Sequence[int],
) -> torch.Tensor:
    """Logits after one token more of every row, at this position; the cache has so many of it."""
    held, at = torch.tensor([lengths, positions], device=model.device)
    length = int(cache.get_seq_length())
    places = torch.arange(length + 1, device=model.device)
    mask = places >= (length - held)[:, None]
    ids = torch.tensor(tokens, device=model.device)[:, None]
    return _forward(model, cache, ids, mask.long(), at[:, None])


def _forward(
    model: PreTrainedModel,
    cache: RowCache,
    ids: torch.Tensor,
    mask: torch.Tensor,
    positions: torch.Tensor,
) -> torch.Tensor:
    """Logits [rows, vocabulary] of the next token of every row."""
    output = model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    logits: torch.Tensor = output.logits[:, -1]
    return logits


@torch.no_grad()
def decodes_in_rows(model: PreTrainedModel, prompts: Sequence[Sequence[int]], longest: int) -> bool:
    """Whether rows of differing lengths that join and leave get the logits that each gets alone.

    Not so for models whose caches hold something else than the keys and values of all tokens.

    Args:
        model: in the state in which it will be used.
        prompts: some, of which the shortest and the longest are tried.
        longest: tokens that a prompt and its answer may have.
    """
    if _turned_by_longest(model, longest):
        return False
    by_length = sorted(prompts, key=len)
    # Of one length, one is cut, so that there is padding.
    rows = [list(by_length[-1]), list(by_length[0]), list(by_length[-1])[: len(by_length[-1]) // 2]]
    rows = [row[-CHECKED:] for row in rows if row]
    device = model.device
    more = rows[0][-1]

    def alone(row: list[int]) -> torch.Tensor:
        ids = torch.tensor([row], device=device)
        logits: torch.Tensor = model(input_ids=ids, use_cache=False).logits[0, -1]
        return logits

    try:
        cache, other = RowCache(), RowCache()
        found = list(_forward(model, cache, *_left_padded(rows[:-1], device)))
        found += list(_forward(model, other, *_left_padded(rows[-1:], device)))
        same = all(_same(logits, alone(row)) for logits, row in zip(found, rows, strict=True))
        cache.join(other)
        left = rows[1:]
        skip = int(cache.get_seq_length()) - max(map(len, left))
        cache.take(torch.arange(1, len(rows), device=device), skip)
        for _ in range(2):
            lengths = list(map(len, left))
            found = list(_one_more(model, cache, [more] * len(left), lengths, lengths))
            left = [[*row, more] for row in left]
            same = same and all(
                _same(logits, alone(row)) for logits, row in zip(found, left, strict=True)
            )
    # What a model makes of a cache that is not its own is not to be foreseen.
    except Exception as error:
        if out_of_memory(error):
            raise
        return False
    return same


def _turned_by_longest(model: PreTrainedModel, longest: int) -> bool:
    """Whether the rotary angles of all rows would be those of the longest one at some time."""
    config = model.config.get_text_config()
    rope = getattr(config, "rope_parameters", None) or {}
    for each in (rope, *(value for value in rope.values() if isinstance(value, dict))):
        if each.get("rope_type") in ("dynamic", "longrope"):
            first = each.get("original_max_position_embeddings") or config.max_position_embeddings
            if longest > first:
                return True
    return False


def _same(found: torch.Tensor, expected: torch.Tensor) -> bool:
    """Whether logits [vocabulary] differ by no more than rounding makes them differ.

    That of 16 bits adds up over the layers and chooses other experts now and then, so that of a
    large vocabulary some logit is always off: all of them are judged together.
    """
    if expected.dtype.itemsize != 2:
        return equal_to_rounding(found, expected, expected.dtype, equal_nan=True)
    difference, spread = (found.double() - expected.double()).norm(), expected.double().std()
    bound = NOISE * spread * len(expected) ** 0.5
    # Logits that are not finite are told by whoever generates.
    return not bool(difference > bound)
