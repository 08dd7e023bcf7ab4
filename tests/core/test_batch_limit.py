"""Batches are cut smaller where memory runs out, and nothing is computed twice or lost."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mbench.core.batch_limit import BatchLimit, bands

CPU_ERROR = "[enforce fail] . DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 B"


class Work:
    """Pieces of some sizes, computed in batches by a machine with room for `room` tokens."""

    def __init__(self, sizes, room, error=torch.OutOfMemoryError):
        self.left = list(range(len(sizes)))
        self.sizes, self.room, self.error = sizes, room, error
        self.done, self.tried = [], []

    def cut(self, most):
        batch, batches = [], []
        for piece in self.left:
            if batch and self.size([*batch, piece]) > most:
                batches.append(batch)
                batch = []
            batch.append(piece)
        return [*batches, batch] if batch else batches

    def size(self, batch):
        return sum(self.sizes[piece] for piece in batch)

    def compute(self, batch):
        self.tried.append(self.size(batch))
        if self.size(batch) > self.room:
            raise self.error(CPU_ERROR if self.error is RuntimeError else "no")
        self.done += batch
        self.left = [piece for piece in self.left if piece not in batch]

    def run(self, limit):
        limit.run(self.cut, self.size, self.compute)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, RuntimeError])
@settings(max_examples=15, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 20), max_size=30),
    room=st.integers(1, 60),
    tokens=st.integers(1, 300),
)
def test_every_piece_is_computed_once_whatever_there_is_room_for(error, sizes, room, tokens):
    work, told = Work(sizes, room, error), []
    limit = BatchLimit(tokens, tell=told.append)
    if max(sizes, default=0) > room:
        said = r"^no memory for \d+ tokens that cannot be read in parts: .*(no|allocate 9 B)$"
        with pytest.raises(torch.OutOfMemoryError, match=said):
            work.run(limit)
    else:
        work.run(limit)
        assert sorted(work.done) == list(range(len(sizes)))
    assert len(set(work.done)) == len(work.done)
    failed = [size for size in work.tried if size > room]
    assert len(told) == len(failed) - (max(sizes, default=0) > room)
    assert len(failed) <= 10  # halves each time
    assert not told or limit.tokens < tokens


def test_a_small_batch_that_had_no_memory_for_a_moment_leaves_room_for_large_ones():
    """E.g. since somebody else used the GPU, too: later masks are not read token by token."""
    work = Work([100] * 10 + [3], 1000)
    compute, failing = work.compute, [3]

    def compute_later(batch):
        if work.size(batch) in failing:
            failing.remove(work.size(batch))
            raise torch.OutOfMemoryError("no")
        compute(batch)

    work.compute, limit = compute_later, BatchLimit(1000)
    work.run(limit)
    assert (work.tried, limit.tokens) == ([1000, 3], 500)


def test_what_is_no_lack_of_memory_is_raised_at_once():
    work = Work([3, 3], 4, ValueError)
    with pytest.raises(ValueError, match="no"):
        work.run(BatchLimit(100))
    assert work.tried == [6]
    assert (BatchLimit.of(7).tokens, BatchLimit.automatic(torch.nn.Linear(2, 2)).tokens) == (
        7,
        8192,
    )


@given(lengths=st.lists(st.integers(1, 500), max_size=60), tokens=st.integers(1, 2000))
def test_bands_hold_every_row_once_in_few_tokens_of_padding(lengths, tokens):
    lengths.sort(reverse=True)
    parts = [lengths[part] for part in bands(lengths, tokens)]
    assert [length for part in parts for length in part] == lengths
    for part, after in itertools.pairwise([*parts, [0]]):
        assert len(part) == 1 or len(part) * part[0] <= tokens
        assert min(part) >= 0.9 * part[0]
        # It ended for a reason.
        more = after[0] >= 0.9 * part[0] and (len(part) + 1) * part[0] <= tokens
        assert not more or part is parts[-1]


def test_what_cannot_go_on_begins_again_with_half():
    tried, told = [], []

    def compute(tokens):
        tried.append(tokens)
        if tokens > 30:
            raise torch.OutOfMemoryError("no")
        return "found"

    limit = BatchLimit(100, tell=told.append)
    assert limit.whole(compute) == "found"
    assert (tried, limit.tokens, len(told)) == ([100, 50, 25], 25, 2)
    assert limit.whole(compute) == "found"
    assert tried[3:] == [25]
    # Sequences of 40 tokens are not cut, however small the limit.
    tried.clear()
    with pytest.raises(torch.OutOfMemoryError):
        BatchLimit(100).whole(lambda tokens: compute(max(tokens, 40)), 40)
    assert tried == [100, 50, 40]


def test_a_gpu_is_filled_by_what_batches_took_and_never_after_memory_ran_out(monkeypatch):
    """Of a GPU with room for so many tokens of 1,000 bytes each, beside 2 MB whatever the batch."""
    device, base = torch.device("cuda", 0), 10**8
    work = Work([100] * 3000, 40_000)

    def peak(_):
        return base + 2 * 10**6 + 1000 * work.tried[-1]

    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda _: None)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: base)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: base + 10**6)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (41 * 10**6, 80 * 10**9))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", peak)
    told = []
    limit = BatchLimit(2048, devices=[device], tell=told.append)
    work.run(limit)
    assert not told
    assert work.tried[0] == 2000
    assert 25_000 < limit.tokens < 40_000
    assert len(work.tried) < 20
    # What the measurement did not foresee:
    work = Work([100] * 3000, 10_000)
    limit = BatchLimit(2048, devices=[device], tell=told.append)
    work.run(limit)
    assert limit.tokens <= 10_000
    assert len(told) == sum(size > 10_000 for size in work.tried)
    assert "out of memory" in told[0]
    assert sorted(work.done) == list(range(3000))
