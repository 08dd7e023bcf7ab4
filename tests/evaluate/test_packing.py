"""Requests that share rows, lines and batches get what each gets alone."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from transformers import Qwen2MoeConfig, Qwen2MoeForCausalLM

from mbench.core.batch_limit import BatchLimit
from mbench.evaluate import arrangement
from mbench.evaluate.arrangement import Arrangement, batches_of
from mbench.evaluate.lm_head import Predicted, SplitModel, log_probabilities
from mbench.evaluate.packing import Packing, Request

TOKENS = 11


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


@pytest.mark.parametrize("attention", list(MODELS))
@settings(max_examples=60, deadline=None)
@given(requests=requests_of_a_tree(), tokens=st.integers(1, 200))
def test_every_request_gets_what_it_gets_alone(attention, requests, tokens):
    model, counted = MODELS[attention], []
    packing = Packing(requests)
    parts = packing.usable(model, BatchLimit(tokens))
    assert parts is not None
    found = packing.score(parts, BatchLimit(tokens), torch.device("cpu"), counted.append)
    # Eager attention takes its softmax in float32 whatever the model's dtype.
    tolerance = 1e-10 if attention == "sdpa" else 1e-5
    for request, (value, greedy) in zip(requests, found, strict=True):
        expected, greedy_alone = alone(model, request)
        assert value == pytest.approx(expected, abs=tolerance)
        assert greedy == greedy_alone
    prefixes = {tuple(each.tokens[:stop]) for each in requests for stop in range(1, 99)}
    assert packing.floor == len(prefixes) <= packing.tokens <= sum(len(r.tokens) for r in requests)
    assert sum(counted) >= packing.tokens or tokens >= arrangement.LONGEST_ROW
    for one, two in itertools.combinations(range(len(requests)), 2):
        if requests[one] == requests[two]:
            assert found[one] == found[two]


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


@settings(max_examples=40, deadline=None)
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

    parts = SplitModel(Small(), model.get_output_embeddings())
    packing, limit, counted = Packing(requests), BatchLimit(tokens), []
    found = packing.score(parts, limit, torch.device("cpu"), counted.append)
    expected = [alone(model, request) for request in requests]
    assert [value for value, _ in found] == pytest.approx([value for value, _ in expected])
    assert len(counted) == len(scored)
    assert limit.tokens <= tokens


@settings(max_examples=60, deadline=None)
@given(
    sequences=st.lists(
        st.lists(st.integers(0, 2), min_size=1, max_size=40), min_size=1, max_size=30
    ),
    most=st.integers(1, 120),
)
def test_rows_and_batches_hold_every_sequence_once_within_their_bounds(sequences, most):
    found = Arrangement(sequences)
    rows = found.rows(range(len(sequences)), most)
    assert sorted(at for row in rows for at in row.members) == list(range(len(sequences)))
    for row in rows:
        tree = {
            tuple(sequences[at][:stop])
            for at in row.members
            for stop in range(1, len(sequences[at]) + 1)
        }
        assert row.tokens == len(tree)
        longest = max(len(sequences[at]) for at in row.members)
        assert row.tokens <= most or row.tokens == longest
    batches = list(batches_of(rows, most))
    assert sorted(row.members for lines in batches for line in lines for row in line) == sorted(
        row.members for row in rows
    )
    for lines in batches:
        lengths = [sum(row.tokens for row in line) for line in lines]
        assert len(lines) * max(lengths) <= most or (len(lines) == 1 and len(lines[0]) == 1)
        assert sum(lengths) >= 0.9 * len(lines) * max(lengths)


def test_the_cut_into_rows_costs_least():
    """All cuts of a few sorted sequences, tried one by one."""
    examples = [7] * 700
    sequences = [[*examples, at, *[at] * 40] for at in range(6)] + [[9] * 500, [9, *[8] * 300]]
    rows = Arrangement(sequences).rows(range(8), 4000)

    def cost(part):
        tokens = len({tuple(each[:stop]) for each in part for stop in range(1, len(each) + 1)})
        return tokens + tokens**2 / arrangement.PAIRS

    ordered, best = sorted(sequences), float("inf")
    for cuts in itertools.product((False, True), repeat=7):
        places = [0, *(at + 1 for at, cut in enumerate(cuts) if cut), 8]
        best = min(best, sum(cost(ordered[a:b]) for a, b in itertools.pairwise(places)))
    assert sum(row.tokens + row.tokens**2 / arrangement.PAIRS for row in rows) == pytest.approx(
        best
    )


def test_few_batches_with_little_padding_whatever_their_size():
    """Lengths as those of a task: most short, a few long."""
    generator = torch.Generator().manual_seed(0)
    lengths = (20 + torch.empty(2000).exponential_(0.02, generator=generator)).int().tolist()
    sequences = [[at] * length for at, length in enumerate(lengths)]
    rows = Arrangement(sequences).rows(range(2000), 4096)
    for tokens in (4096, 8192, 16384, 65536, 131072):
        batches = list(batches_of(rows, tokens))
        padded = sum(
            len(lines) * max(sum(row.tokens for row in line) for line in lines) for lines in batches
        )
        assert padded <= 1.1 * sum(lengths)
        assert len(batches) <= sum(lengths) / tokens + 12


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
