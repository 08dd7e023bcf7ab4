"""What prompts share is read once, and their answers are those of one prompt at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.family_models import FAMILIES, tiny_model
from helpers.one_by_one import likeliest, never, one_by_one
from helpers.tiny_models import VOCABULARY
from helpers.window_models import WINDOWS, window_model
from mbench.core.batch_limit import BatchLimit
from mbench.evaluate import decoding, shared_prompts
from mbench.evaluate.answers import Answer
from mbench.evaluate.decoding import generate
from mbench.evaluate.row_cache import RowCache
from mbench.evaluate.row_passes import decodes_in_rows
from mbench.evaluate.shared_prompts import beginnings


def best_by_trying(prompts, cost, depth=0):
    """The most tokens spared by groups of all prompts that begin with the same tokens."""
    if len(prompts) < 2:
        return 0
    whole = (len(prompts) - 1) * depth - cost
    goes_on = [prompt for prompt in prompts if len(prompt) > depth + 1]
    branches = [[each for each in goes_on if each[depth] == token] for token in range(3)]
    return max(0, whole, sum(best_by_trying(branch, cost, depth + 1) for branch in branches))


@settings(max_examples=200, deadline=None)
@given(
    prompts=st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=8), max_size=12),
    cost=st.integers(0, 4),
)
def test_groups_spare_what_the_best_choice_spares(prompts, cost):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shared_prompts, "PASS", cost)
        groups = beginnings(prompts)
    members = [member for group in groups for member in group.members]
    assert len(set(members)) == len(members)
    for group in groups:
        assert len({tuple(prompts[at][: group.tokens]) for at in group.members}) == 1
        assert all(len(prompts[at]) > group.tokens for at in group.members)
    assert sum(group.spared - cost for group in groups) == best_by_trying(prompts, cost)


def few_shot(rng, groups=(0, 1), longest=20):
    """Prompts of some groups that begin alike, and some of their own; in a random order."""
    found = []
    for group in groups:
        head = rng.integers(3, VOCABULARY, 17 + 7 * group).tolist()
        lengths = rng.integers(1, longest, 8)
        found += [[*head, *rng.integers(3, VOCABULARY, length).tolist()] for length in lengths]
        found.append([*head, 4])
    found += [rng.integers(3, VOCABULARY, length).tolist() for length in (1, 5, 30)]
    found += [found[0], found[0]]  # the same again
    return [found[at] for at in rng.permutation(len(found))]


def compare(model, prompts, limits, tokens=60):
    with torch.no_grad():
        alone = [
            one_by_one(model, prompt, limit, ())
            for prompt, limit in zip(prompts, limits, strict=True)
        ]
    answers = [Answer(*pair, never) for pair in zip(prompts, limits, strict=True)]
    done = []
    work = generate(model, answers, BatchLimit(tokens), likeliest, done.append)
    assert [answer.tokens for answer in answers] == alone
    spared = sum(group.spared for group in beginnings(prompts))
    assert spared > len(prompts)
    assert work.prompt_tokens == sum(map(len, prompts)) - spared
    assert sum(done) == work.prompt_tokens + sum(limits)


@pytest.fixture(autouse=True)
def passes_are_cheap(monkeypatch):
    monkeypatch.setattr(shared_prompts, "PASS", 20)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_reads_what_prompts_share_once(name):
    model = tiny_model(name).eval()
    prompts = few_shot(np.random.default_rng(0))
    if not decodes_in_rows(model, prompts, 60):
        pytest.skip("its cache holds something else: tests/evaluate/test_decoding.py")
    compare(model, prompts, [3 + at % 7 for at in range(len(prompts))])


@pytest.mark.parametrize("name", WINDOWS)
def test_a_window_shorter_than_what_is_shared(name):
    model = window_model(name)
    prompts = few_shot(np.random.default_rng(1))
    compare(model, prompts, [2 + at % 9 for at in range(len(prompts))])


class Starved:
    """A model whose memory ends at some of its calls, or always beyond so many rows."""

    def __init__(self, model, fails, rows=10**9):
        self.model, self.fails, self.rows, self.device = model, fails, rows, model.device
        self.calls = 0

    def get_output_embeddings(self):
        return self.model.get_output_embeddings()

    def __call__(self, input_ids, **rest):
        self.calls += 1
        output = self.model(input_ids=input_ids, **rest)  # the cache has it, and then is lost
        if len(input_ids) > self.rows or self.calls in self.fails:
            raise torch.OutOfMemoryError
        return output


@pytest.fixture(scope="module")
def answered():
    model = tiny_model("mixtral").eval()
    prompts = few_shot(np.random.default_rng(2))
    limits = [1 + at * 5 % 13 for at in range(len(prompts))]
    with torch.no_grad():
        texts = [one_by_one(model, *pair, ()) for pair in zip(prompts, limits, strict=True)]
    return model, prompts, limits, texts


@pytest.mark.parametrize("fails", [{1}, {2}, {3}, {4}, {7}, {10, 14, 18}, {20}, set(range(2, 40))])
def test_memory_that_runs_out_at_any_time_loses_no_token(answered, fails):
    """While a beginning or prompts are read, while rows are generated, again and again."""
    model, prompts, limits, texts = answered
    answers = [Answer(*pair, never) for pair in zip(prompts, limits, strict=True)]
    told, done = [], []
    limit = BatchLimit(60, tell=told.append)
    starved = Starved(model, fails)
    if fails == {1} or len(fails) > 30:
        # A beginning, and later a single row, is the least that there is.
        with pytest.raises(torch.OutOfMemoryError):
            generate(starved, answers, limit, likeliest, done.append)
        assert all(
            own.tokens == text[: len(own.tokens)] for own, text in zip(answers, texts, strict=True)
        )
        generate(model, [answer for answer in answers if not answer.over], limit, likeliest)
        assert [answer.tokens for answer in answers] == texts
        return
    work = generate(starved, answers, limit, likeliest, done.append)
    assert [answer.tokens for answer in answers] == texts
    assert len(told) == len(fails)
    # A prompt alone goes on without what is shared, and no limit falls.
    assert limit.tokens < 60 or limit.rows is not None or fails == {2}
    # No token was generated twice.
    assert work.answer_tokens <= sum(limits)
    spared = sum(group.spared for group in beginnings(prompts))
    assert sum(done) == sum(map(len, prompts)) - spared + sum(limits)


def test_a_prompt_alone_goes_on_without_what_is_shared_and_no_limit_falls(answered):
    model, prompts, limits, texts = answered
    answers = [Answer(*pair, never) for pair in zip(prompts, limits, strict=True)]
    told = []
    limit = BatchLimit(60, tell=told.append)
    limit.rows = 1
    # The first pass reads a beginning, the second a prompt that goes on from it.
    generate(Starved(model, {2}), answers, limit, likeliest)
    assert [answer.tokens for answer in answers] == texts
    assert (limit.tokens, limit.rows) == (60, 1)
    assert told == [
        "out of memory (OutOfMemoryError) over one prompt, goes on without what prompts share"
    ]


@pytest.mark.parametrize("part", ["join", "take", "beginnings"])
def test_memory_that_runs_out_while_rows_join_or_leave(answered, part, monkeypatch):
    model, prompts, limits, texts = answered
    whole, calls = getattr(RowCache, part), []

    def failing(self, *args):
        calls.append(args)
        if len(calls) % 3 == 2 and len(calls) < 12:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return whole(self, *args)

    monkeypatch.setattr(RowCache, part, failing)
    monkeypatch.setattr(decoding, "MOST_ROWS", 12)
    answers = [Answer(*pair, never) for pair in zip(prompts, limits, strict=True)]
    told = []
    generate(model, answers, BatchLimit(60, tell=told.append), likeliest)
    assert [answer.tokens for answer in answers] == texts
    assert told


def test_rows_that_memory_had_no_room_for_are_not_tried_under_the_next_mask(answered):
    model, prompts, limits, texts = answered
    told = []
    limit, starved = BatchLimit(10_000, tell=told.append), Starved(model, set(), rows=5)
    for first in (True, False):
        answers = [Answer(*pair, never) for pair in zip(prompts, limits, strict=True)]
        generate(starved, answers, limit, likeliest)
        assert [answer.tokens for answer in answers] == texts
        assert bool(told) == first
        assert all("out of memory" in line for line in told)
        told.clear()
