"""Requests that share rows, lines and batches get what each gets alone."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from transformers import Qwen2MoeConfig, Qwen2MoeForCausalLM

from helpers.family_models import tiny_model
from helpers.lm_eval_runs import toy_tokenizer
from mbench.core.batch_limit import BatchLimit
from mbench.evaluate import arrangement, cuts
from mbench.evaluate.lm_eval import reference
from mbench.evaluate.lm_head import Predicted, SplitModel, log_probabilities
from mbench.evaluate.packed_batch import Request
from mbench.evaluate.packing import Packing

TOKENS = 11
CHECKS = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
CPU = torch.device("cpu")


def model_of(attention):
    torch.manual_seed(3)
    config = Qwen2MoeConfig(
        vocab_size=TOKENS,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        moe_intermediate_size=8,
        shared_expert_intermediate_size=8,
        num_experts=4,
        num_experts_per_tok=2,
        attn_implementation=attention,
    )
    model = Qwen2MoeForCausalLM(config).eval().double()
    model.set_experts_implementation("eager")
    return model


MODELS = {attention: model_of(attention) for attention in ("sdpa", "eager")}


@st.composite
def requests_of_a_tree(draw):
    """Requests that begin with others' beginnings, or with nothing in common."""
    token = st.integers(0, TOKENS - 1)
    known, requests = [[]], []
    for _ in range(draw(st.integers(1, 14))):
        base = draw(st.sampled_from(known))
        whole = base[: draw(st.integers(0, len(base)))] + draw(st.lists(token, max_size=8))
        whole = whole if len(whole) > 1 else [1, 2, *whole]
        known.append(whole)
        targets = draw(st.integers(1, len(whole) - 1))
        requests.append(Request(whole[:-1], whole[len(whole) - targets :]))
    return requests


@torch.no_grad()
def alone(model, request):
    logits = model(input_ids=torch.tensor([request.tokens]), use_cache=False).logits[0]
    logs = torch.log_softmax(logits[-len(request.targets) :], -1)
    value = sum(float(logs[at, token]) for at, token in enumerate(request.targets))
    return value, logs.argmax(-1).tolist() == list(request.targets)


@pytest.fixture(params=[cuts.APART, 0], ids=["", "begun"])
def apart(request, monkeypatch):
    """Tokens that a beginning must spare to be read in advance: also where it spares but a few."""
    monkeypatch.setattr(cuts, "APART", request.param)


@pytest.mark.usefixtures("apart")
@pytest.mark.parametrize("attention", list(MODELS))
@settings(max_examples=60, deadline=None, suppress_health_check=CHECKS)
@given(requests=requests_of_a_tree(), tokens=st.integers(1, 200))
def test_every_request_gets_what_it_gets_alone(attention, requests, tokens):
    model, counted = MODELS[attention], []
    packing = Packing(requests)
    parts = packing.usable(model, BatchLimit(tokens))
    assert parts is not None
    found = packing.score(parts, BatchLimit(tokens), CPU, counted.append)
    # Eager attention takes its softmax in float32 whatever the model's dtype.
    tolerance = 1e-10 if attention == "sdpa" else 1e-5
    for request, (value, greedy) in zip(requests, found, strict=True):
        expected, greedy_alone = alone(model, request)
        assert value == pytest.approx(expected, abs=tolerance)
        assert greedy == greedy_alone
    prefixes = {tuple(each.tokens[:stop]) for each in requests for stop in range(1, 99)}
    assert packing.floor == len(prefixes) <= packing.tokens <= sum(len(r.tokens) for r in requests)
    assert sum(counted) >= packing.tokens
    for one, two in itertools.combinations(range(len(requests)), 2):
        if requests[one] == requests[two]:
            assert found[one] == found[two]


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_rotary_angles_that_follow_the_longest_request_are_not_shared(kind):
    rope = {"rope_type": kind, "rope_theta": 10_000.0, "factor": 4.0}
    if kind == "longrope":
        rope |= {"original_max_position_embeddings": 64}
        rope |= {"short_factor": [1.0] * 4, "long_factor": [3.0] * 4}
    model = tiny_model("mixtral", head_dim=8, rope_parameters=rope).eval().double()
    model.set_experts_implementation("eager")
    short = Request([4, 5, 6, 7], [9])
    for length, usable in ((64, True), (65, False)):
        requests = [short, Request([7] * length, [8])]
        parts = Packing(requests).usable(model, BatchLimit(8192))
        assert (parts is not None) == usable
    tokenizer = toy_tokenizer(["a text"])
    found = reference.score_all(model, tokenizer, requests, BatchLimit(8192), lambda share: None)
    for request, (value, _) in zip(requests, found, strict=True):
        assert value == pytest.approx(alone(model, request)[0], rel=1e-9)


def test_requests_that_read_the_same_may_have_targets_of_several_lengths():
    """Where a model is not packed, lm-eval computes what they read once for all of them."""
    model = tiny_model("gpt_oss").eval()
    requests = [Request([5, 6, 7, 8, 9], targets) for targets in ([10], [8, 9, 11], [12])]
    assert Packing(requests).usable(model, BatchLimit(64)) is None
    tokenizer = toy_tokenizer(["a text"])
    for order in itertools.permutations(requests):
        found = reference.score_all(model, tokenizer, order, BatchLimit(64), lambda share: None)
        expected = [alone(model, request)[0] for request in order]
        assert [value for value, _ in found] == pytest.approx(expected, abs=1e-4)


def test_a_packed_model_that_looks_elsewhere_is_not_trusted():
    """One that counts positions by columns, and one that sees the branches beside its own."""
    requests = [Request([1, 2, 3, 4, token, 6, 7], [token]) for token in range(5)]
    model = model_of("sdpa")
    body, forward = model.base_model, type(model.base_model).forward
    for name in ("position_ids", "attention_mask"):
        body.forward = lambda name=name, **inputs: forward(body, **(inputs | {name: None}))
        assert Packing(requests).usable(model, BatchLimit(64)) is None
    del body.forward
    assert Packing(requests).usable(model, BatchLimit(64)) is not None


@pytest.mark.usefixtures("apart")
@settings(max_examples=60, deadline=None, suppress_health_check=CHECKS)
@given(requests=requests_of_a_tree(), room=st.integers(30, 80), tokens=st.integers(1, 300))
def test_what_was_scored_before_memory_ran_out_is_not_scored_again(requests, room, tokens):
    assume(max(len(request.tokens) for request in requests) <= room)
    model, scored = MODELS["sdpa"], []
    body = model.base_model

    def forward(input_ids, **inputs):
        if input_ids.numel() > room:
            raise torch.OutOfMemoryError("no")
        scored.append(input_ids.numel())
        return body(input_ids=input_ids, **inputs)

    class Small(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
            self.forward = forward

    parts = SplitModel(Small(), model.get_output_embeddings(), goes_on=True)
    packing, limit, counted = Packing(requests), BatchLimit(tokens), []
    found = packing.score(parts, limit, CPU, counted.append)
    expected = [alone(model, request) for request in requests]
    assert [value for value, _ in found] == pytest.approx([value for value, _ in expected])
    assert len(counted) == len(scored)
    assert limit.tokens <= tokens


@settings(max_examples=20, deadline=None)
@given(requests=requests_of_a_tree(), tokens=st.integers(1, 60))
def test_requests_longer_than_any_row_share_what_they_begin_with(requests, tokens):
    """Contexts beyond the longest row, of which every choice is but a few tokens more."""
    context = [5, 6, 7, 8, 9] * 6
    choices = [Request([*context, *each.tokens], each.targets) for each in requests]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arrangement, "LONGEST_ROW", 10)
        packing = Packing([*choices, Request([3, *context[:-1]], context[-9:])])
        parts = packing.usable(MODELS["sdpa"], BatchLimit(8192))
        for room in (tokens, 8192):
            found = packing.score(parts, BatchLimit(room), CPU, lambda tokens: None)
            for request, (value, _) in zip(choices, found, strict=False):
                assert value == pytest.approx(alone(MODELS["sdpa"], request)[0], abs=1e-10)
        sent = sum(batch.tokens for batch in packing.batches(8192, begins=False))
        assert sent == packing.tokens
        # A row holds at least two of the longest, so that of these contexts it holds two and more.
        assert sent <= packing.floor + 30 * (len(choices) // 2)


def test_what_has_a_line_by_itself_is_read_without_a_mask_of_its_square():
    requests = [Request([at] * (300 + at), [at]) for at in range(3)]
    model, seen = MODELS["sdpa"], []
    forward = type(model.base_model).forward

    def spied(self, *args, **inputs):
        seen.append(inputs.get("attention_mask"))
        return forward(self, *args, **inputs)

    packing = Packing(requests)
    parts = packing.usable(model, BatchLimit(8192))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(model.base_model), "forward", spied)
        found = packing.score(parts, BatchLimit(8192), CPU, lambda tokens: None)
    assert seen == [None]
    for request, (value, _) in zip(requests, found, strict=True):
        assert value == pytest.approx(alone(model, request)[0], abs=1e-10)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_head_runs_once_a_position_in_bounded_memory(device, monkeypatch):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU")
    monkeypatch.setattr("mbench.evaluate.lm_head.MOST_LOGITS", 3 * TOKENS)
    torch.manual_seed(0)
    head = torch.nn.Linear(5, TOKENS).to(device)
    hidden, seen = torch.randn(20, 5, device=device), []
    head.register_forward_hook(lambda module, inputs, out: seen.append(len(out)))
    positions, targets = torch.randint(20, (40,)).numpy(), torch.randint(TOKENS, (40,)).numpy()
    with torch.no_grad():
        logs, likeliest = log_probabilities(head, hidden, Predicted.of(positions, targets))
        assert sum(seen) == len(set(positions.tolist()))
        assert max(seen) == 3
        every = torch.log_softmax(head(hidden), -1)
    for at, (position, target) in enumerate(zip(positions, targets, strict=True)):
        assert float(logs[at]) == pytest.approx(float(every[position, target]), abs=1e-6)
        assert int(likeliest[at]) == int(every[position].argmax())
