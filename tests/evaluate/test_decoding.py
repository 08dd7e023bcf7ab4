"""Answers generated side by side, against transformers generating them one at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from helpers.family_models import FAMILIES, tiny_model
from helpers.one_by_one import likeliest, never, one_by_one
from helpers.tiny_models import VOCABULARY
from helpers.window_models import WINDOWS, window_model
from mbench.core.batch_limit import BatchLimit
from mbench.evaluate import decoding
from mbench.evaluate.answers import Answer
from mbench.evaluate.decoding import NotFinite, generate
from mbench.evaluate.row_cache import RowCache
from mbench.evaluate.row_passes import decodes_in_rows

NOT_IN_ROWS = {
    *("axk2", "bailing_hybrid", "deepseek_v32", "dots3_note_text", "glm_moe_dsa"),
    *("granitemoehybrid", "hy_v4", "inkling2_text", "jamba", "kimi_linear", "lfm2_moe", "minimax"),
    *("nemotron_h", "qwen3_5_moe_text", "qwen3_next", "qwen4_exp_text"),
}
"""Families whose caches hold something else than the keys and values of all tokens."""


def prompts_of(count, longest=24, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(3, VOCABULARY, rng.integers(1, longest)).tolist() for _ in range(count)]


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_gets_side_by_side_what_it_gets_alone(name):
    model = tiny_model(name).eval()
    prompts = prompts_of(9)
    usable = decodes_in_rows(model, prompts, 40)
    assert usable == (name not in NOT_IN_ROWS)
    if not usable:
        return
    ends = set(range(3, 3 + VOCABULARY // 8))
    limits = [4 + at for at in range(len(prompts))]
    answers = [
        Answer(prompt, limit, lambda tokens: tokens[-1] in ends)
        for prompt, limit in zip(prompts, limits, strict=True)
    ]
    with torch.no_grad():
        alone = [
            one_by_one(model, prompt, limit, ends)
            for prompt, limit in zip(prompts, limits, strict=True)
        ]
    work = generate(model, answers, BatchLimit(40), likeliest)
    assert [answer.tokens for answer in answers] == alone
    assert work.prompt_tokens == sum(map(len, prompts))
    assert work.answer_tokens == sum(map(len, alone)) - len(alone)


@pytest.mark.parametrize("name", WINDOWS)
def test_a_window_that_rows_outgrow_sees_the_same_side_by_side(name):
    model = window_model(name)
    pairs = [(prompt, 10 + 2 * at) for at, prompt in enumerate(prompts_of(9, longest=30))]
    with torch.no_grad():
        alone = [one_by_one(model, prompt, limit, ()) for prompt, limit in pairs]
    answers = [Answer(prompt, limit, never) for prompt, limit in pairs]
    generate(model, answers, BatchLimit(60), likeliest)
    assert [answer.tokens for answer in answers] == alone


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_rotary_angles_that_follow_the_longest_row_are_not_mixed(kind):
    rope = {"rope_type": kind, "rope_theta": 10_000.0, "factor": 4.0}
    if kind == "longrope":
        rope |= {"original_max_position_embeddings": 64}
        rope |= {"short_factor": [1.0] * 4, "long_factor": [3.0] * 4}
    model = tiny_model("mixtral", head_dim=8, rope_parameters=rope).eval()
    prompts = prompts_of(3)
    assert decodes_in_rows(model, prompts, 64)
    assert not decodes_in_rows(model, prompts, 65)


def test_rounding_of_16_bits_is_told_from_rows_that_see_padding(monkeypatch):
    # Deep, and with logits spread as those of trained models are: single ones differ by 2 %.
    sizes = {"hidden_size": 128, "vocab_size": 2000, "num_hidden_layers": 24, "head_dim": 32}
    model = tiny_model("qwen3_moe", **sizes).eval().bfloat16()
    with torch.no_grad():
        head = model.get_output_embeddings().weight
        head *= 2 / (head.float().std() * 128**0.5)
    rng = np.random.default_rng(0)
    # As those of tasks with examples, which are all long.
    prompts = [rng.integers(3, 2000, 60).tolist() for _ in range(3)]
    assert decodes_in_rows(model, prompts, 64)
    prepare = type(model.model).forward

    def unmasked(self, *args, attention_mask=None, **rest):
        return prepare(self, *args, **rest)

    monkeypatch.setattr(type(model.model), "forward", unmasked)
    assert not decodes_in_rows(model, prompts, 64)


def model_of(name="mixtral"):
    return tiny_model(name).eval()


def asked(count=30, seed=1):
    prompts = prompts_of(count, seed=seed)
    limits = np.random.default_rng(seed).integers(1, 20, count).tolist()
    return list(zip(prompts, limits, strict=True))


class Starved:
    """A model whose memory ends beyond so many rows, or so many tokens at once."""

    def __init__(self, model, rows, tokens):
        self.model, self.rows, self.tokens = model, rows, tokens
        self.device, self.calls = model.device, []

    def get_output_embeddings(self):
        return self.model.get_output_embeddings()

    def __call__(self, input_ids, **rest):
        self.calls.append(tuple(input_ids.shape))
        if len(input_ids) > self.rows or input_ids.numel() > self.tokens:
            raise torch.OutOfMemoryError
        return self.model(input_ids=input_ids, **rest)


def test_where_memory_runs_out_fewer_rows_go_on_and_nothing_is_lost():
    model, pairs = model_of(), asked()
    with torch.no_grad():
        alone = [one_by_one(model, prompt, limit, ()) for prompt, limit in pairs]
    starved = Starved(model, rows=5, tokens=100)
    answers = [Answer(prompt, limit, never) for prompt, limit in pairs]
    done = []
    work = generate(starved, answers, BatchLimit(400), likeliest, done.append)
    assert [answer.tokens for answer in answers] == alone
    assert sum(done) == sum(len(prompt) + limit for prompt, limit in pairs)
    assert max(rows for rows, _ in starved.calls[-10:]) <= 5
    # Half of what did not fit is tried, and not a row at a time: 30 answers of up to 19 tokens.
    assert work.steps < sum(limit for _, limit in pairs) / 2
    # What was generated before memory ran out is read again, and not generated again.
    made = work.answer_tokens + len(pairs)
    assert made <= sum(map(len, alone)) + len(pairs)
    with pytest.raises(torch.OutOfMemoryError):
        generate(Starved(model, 0, 0), [Answer([3, 4], 3, never)], BatchLimit(400), likeliest)


def test_places_that_are_free_are_taken_by_others(monkeypatch):
    monkeypatch.setattr(decoding, "MOST_ROWS", 8)
    model = model_of()
    pairs = asked(40)
    answers = [Answer(prompt, limit, never) for prompt, limit in pairs]
    work = generate(model, answers, BatchLimit(1000), likeliest)
    total = sum(limit for _, limit in pairs)
    assert [len(answer.tokens) for answer in answers] == [limit for _, limit in pairs]
    # Eight places; lm-eval's batches of eight wait for the longest answer of each.
    assert work.steps < 1.3 * total / 8 + 20
    in_batches = sum(max(limit for _, limit in pairs[at : at + 8]) for at in range(0, 40, 8))
    assert work.steps < in_batches


def test_prompts_that_do_not_fit_at_once_leave_the_rows_as_they_are():
    model, pairs = model_of(), asked(60)
    starved = Starved(model, rows=60, tokens=100)
    answers = [Answer(prompt, limit, never) for prompt, limit in pairs]
    work = generate(starved, answers, BatchLimit(400), likeliest)
    assert work.prompt_tokens == sum(len(prompt) for prompt, _ in pairs)
    assert max(rows for rows, tokens in starved.calls if tokens == 1) > 20


def test_logits_that_are_not_finite_are_told_with_their_rows():
    model = model_of()
    with torch.no_grad():
        model.get_input_embeddings().weight[5] = float("nan")
    prompts = [[6, 7, 8], [6, 5, 8], [9, 10]]
    answers = [Answer(prompt, 1, never) for prompt in prompts]
    with pytest.raises(NotFinite) as told:
        generate(model, answers, BatchLimit(100), likeliest)
    assert [answer.prompt for answer in told.value.answers] == [[6, 5, 8]]


def test_rows_of_a_cache_leave_and_join_with_their_own_tokens():
    rng = torch.Generator().manual_seed(0)

    def states(rows, length):
        return torch.rand(rows, 2, length, 3, generator=rng)

    cache, other = RowCache(), RowCache()
    one, two, three = states(3, 5), states(2, 7), states(4, 1)
    cache.update(one, -one, 0)
    other.update(two, -two, 0)
    cache.take(torch.tensor([2, 0]), 1)
    cache.join(other)
    keys, values = cache.update(three, -three, 0)
    zeros = torch.zeros(2, 2, 3, 3)
    expected = torch.cat([torch.cat([zeros, one[[2, 0], :, 1:]], 2), two])
    expected = torch.cat([expected, three], 2)
    assert torch.equal(keys, expected)
    assert torch.equal(values, -expected)
    assert cache.bytes_per_token == {torch.device("cpu"): 2 * 2 * 3 * 4}
    for _ in range(200):  # beyond the room of its buffers
        more = states(4, 1)
        keys, _ = cache.update(more, -more, 0)
        expected = torch.cat([expected, more], 2)
        assert torch.equal(keys, expected)
