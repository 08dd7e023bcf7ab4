"""What many requests begin with is read once, and each still gets what it gets alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.family_models import FAMILIES, tiny_model
from helpers.tiny_models import VOCABULARY
from mbench.core.batch_limit import BatchLimit
from mbench.evaluate import cuts
from mbench.evaluate.arrangement import Arrangement
from mbench.evaluate.packed_batch import Request
from mbench.evaluate.packing import Packing


@pytest.fixture(autouse=True)
def passes_are_cheap(monkeypatch):
    monkeypatch.setattr(cuts, "APART", 8)


@settings(max_examples=100, deadline=None)
@given(
    sequences=st.lists(
        st.lists(st.integers(0, 1), min_size=1, max_size=20), min_size=1, max_size=30
    ),
    tokens=st.integers(1, 60),
    scored=st.integers(1, 5),
)
def test_every_sequence_is_cut_once_and_nothing_that_is_scored_is_begun(sequences, tokens, scored):
    most = [max(0, len(each) - scored) for each in sequences]
    found = list(cuts.cuts(Arrangement(sequences), range(len(sequences)), tokens, most))
    rows = [(row, cut.begun) for cut in found for line in cut.lines for row in line]
    members = [at for row, _ in rows for at in row.members]
    assert sorted(members) == list(range(len(sequences)))
    for cut in found:
        own = [at for line in cut.lines for row in line for at in row.members]
        assert len({tuple(sequences[at][: cut.begun]) for at in own}) == 1
        assert all(cut.begun <= most[at] for at in own)
    for row, begun in rows:
        prefixes = {tuple(sequences[at][:stop]) for at in row.members for stop in range(21)}
        assert row.tokens == len([each for each in prefixes if len(each) > begun])
    plain = list(cuts.cuts(Arrangement(sequences), range(len(sequences)), tokens, [0] * 30))
    assert sum(cut.tokens for cut in found) <= sum(cut.tokens for cut in plain)


def few_shot(random, vocabulary=VOCABULARY):
    """Questions with choices after the examples of their subject, and some requests without."""
    requests = []
    for length in (40, 25):
        examples = random.integers(3, vocabulary, length).tolist()
        for more in random.integers(1, 12, 8):
            question = [*examples, *random.integers(3, vocabulary, more).tolist()]
            for _ in range(3):
                choice = random.integers(3, vocabulary, random.integers(1, 5)).tolist()
                requests.append(Request([*question, *choice[:-1]], choice))
        # What is scored begins within what others begin with.
        requests.append(Request(examples[:-1], examples[-9:]))
    for more in (1, 9, 60):
        tokens = random.integers(3, vocabulary, more + 1).tolist()
        requests.append(Request(tokens[:-1], tokens[1:]))
    return requests


@torch.no_grad()
def alone(model, request):
    ids = torch.tensor([request.tokens], device=model.device)
    logits = model(input_ids=ids, use_cache=False).logits[0, -len(request.targets) :].double()
    logs, targets = torch.log_softmax(logits, -1).cpu(), torch.tensor(request.targets)
    return float(logs.gather(1, targets[:, None]).sum()), logs.argmax(-1).equal(targets)


def likely(model, requests):
    """The same, and some whose continuation is what the model would say."""
    found = list(requests)
    for request in requests[::3]:
        with torch.no_grad():
            ids = torch.tensor([request.tokens], device=model.device)
            logits = model(input_ids=ids, use_cache=False).logits
            found.append(Request(request.tokens, logits[0, -1:].argmax(-1).tolist()))
    return found


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_goes_on_from_what_it_has_read(name, device):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU")
    model = tiny_model(name).eval().to(device)
    packing = Packing(requests := likely(model, few_shot(np.random.default_rng(0))))
    parts = packing.usable(model, BatchLimit(50))
    if parts is None:
        pytest.skip("its requests are not packed: tests/evaluate/lm_eval/test_prepared_task.py")
    assert parts.goes_on
    begun = [batch for batch in packing.batches(50, begins=True) if batch.begun]
    assert {len(batch.begun) for batch in begun} == {25, 40}
    counted = []
    found = packing.score(parts, BatchLimit(50), model.device, counted.append)
    expected = [alone(model, request) for request in requests]
    values = [[value for value, _ in each] for each in (found, expected)]
    assert values[0] == pytest.approx(values[1], abs=1e-4)
    assert [greedy for _, greedy in found] == [greedy for _, greedy in expected]
    assert any(greedy for _, greedy in found)
    # The requests that are scored within the examples read them anew.
    assert packing.floor <= sum(counted) <= packing.floor + 39 + 24
    again = sum(batch.tokens for batch in packing.batches(50, begins=False))
    assert again > 1.3 * sum(counted)


def test_a_model_that_forgets_what_it_has_read_is_asked_for_it_in_every_row():
    model = tiny_model("mixtral").eval()
    requests = few_shot(np.random.default_rng(1))
    body, forward = model.base_model, type(model.base_model).forward
    for forgotten in ("past_key_values", "attention_mask", None):

        def forgetful(forgotten=forgotten, **inputs):
            if inputs.get("past_key_values") is not None and "position_ids" in inputs:
                assert forgotten
                inputs[forgotten] = None
            return forward(body, **inputs)

        body.forward = forgetful
        packing = Packing(requests)
        parts = packing.usable(model, BatchLimit(50))
        assert parts is not None
        assert not parts.goes_on
        found = packing.score(parts, BatchLimit(50), model.device, lambda tokens: None)
        del body.forward
        expected = [alone(model, request)[0] for request in requests]
        assert [value for value, _ in found] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("fails", [{1}, {2}, {3}, {2, 5}, {3, 4, 8}, {8}])
def test_memory_that_runs_out_loses_nothing(fails):
    """While a beginning is read, or what goes on from it."""
    model = tiny_model("mixtral").eval()
    packing = Packing(requests := few_shot(np.random.default_rng(2)))
    parts = packing.usable(model, BatchLimit(50))
    body, forward = model.base_model, type(model.base_model).forward
    calls, told = [], []

    def failing(**inputs):
        calls.append(inputs["input_ids"].numel())
        output = forward(body, **inputs)
        if len(calls) in fails:
            raise torch.OutOfMemoryError
        return output

    body.forward = failing
    limit = BatchLimit(50, tell=told.append)
    found = packing.score(parts, limit, model.device, lambda tokens: None)
    del body.forward
    assert len(told) == len(fails)
    expected = [alone(model, request)[0] for request in requests]
    assert [value for value, _ in found] == pytest.approx(expected, abs=1e-4)
