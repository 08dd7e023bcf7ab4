"""Perplexity: each protocol against a token-by-token loop, whatever the lengths."""

import math
from itertools import groupby
from operator import itemgetter

import numpy as np
import pytest
import torch
from transformers import (
    GraniteMoeConfig,
    GraniteMoeForCausalLM,
)

from helpers.family_models import tiny_model
from helpers.naive_perplexity import (
    BOS,
    DOCUMENTS,
    PLACEMENTS,
    SIZES,
    TOKENIZERS,
    described,
    make_model,
    naive_documents,
    naive_texts,
    naive_windows,
    predicted,
)
from mbench.core.batch_limit import BatchLimit
from mbench.core.errors import TaskError
from mbench.evaluate import lm_head
from mbench.evaluate.perplexity import prepare


@pytest.fixture(scope="module")
def model():
    return make_model()


@pytest.mark.parametrize("where", PLACEMENTS)
@pytest.mark.parametrize(
    "spec",
    [
        described("sliding", window=24, stride=7),
        described("sliding", window=24, stride=23, join="", max_windows=3),
        described("gptq", window=17),
        described("document", window=9),
        described("document", window=4, windows_per_document=2),
    ],
    ids=lambda spec: f"{spec.protocol}-{spec.stride}-{spec.windows_per_document}",
)
def test_equals_a_token_by_token_loop(spec, where, model, monkeypatch):
    monkeypatch.setattr(lm_head, "MOST_LOGITS", 5 * SIZES["vocab_size"])  # the head in many pieces
    spec = spec.model_copy(update={"bos": where})
    seen = []
    prepared = prepare("x", spec, DOCUMENTS, TOKENIZERS[False], None)
    found = prepared.evaluate(model, batch_tokens=60, advance=seen.append)
    windows = naive_windows(spec, naive_texts(TOKENIZERS[False], spec, DOCUMENTS, where), where)
    tokens_of = [[predicted(model, ids, at) for at in places] for ids, places in windows]
    by_token = [[loss for loss, _ in each] for each in tokens_of]
    # The windows of documents' numbers are those of the tokens: each token has its document.
    owners = naive_documents(spec, DOCUMENTS, where)
    owned = [[BOS if own is None else own + 1 for own in text] for text in owners]
    rows = []
    for of_window, (numbers, places) in zip(
        by_token, naive_windows(spec, owned, where), strict=True
    ):
        own = [numbers[at] for at in places]
        for owner, each in groupby(zip(own, of_window, strict=True), itemgetter(0)):
            rows.append((owner, [loss for _, loss in each]))
    losses = [sum(row) for _, row in rows]
    assert prepared.scoring == "split"
    assert list(found.items["nll"]) == pytest.approx(losses, rel=1e-9)
    assert list(found.items["tokens"]) == [len(row) for _, row in rows]
    assert [len(top) for top in found.items["top"]] == [len(row) for _, row in rows]
    likeliest = [top for each in tokens_of for _, top in each]
    assert np.concatenate(list(found.items["top"])).tolist() == likeliest
    order = list(dict.fromkeys(own for own, _ in rows))
    assert list(found.items["document"]) == [order.index(own) for own, _ in rows]
    figures = {metric.name: metric.value for metric in found.metrics}
    tokens = sum(len(places) for _, places in windows)
    assert figures["perplexity"] == pytest.approx(math.exp(sum(losses) / tokens), rel=1e-9)
    assert sum(seen) == prepared.tokens == sum(len(ids) - 1 for ids, _ in windows)
    assert found.items["item"].is_unique
    # Batches of other sizes change nothing but rounding.
    again = prepared.evaluate(model, batch_tokens=1).items["nll"]
    assert list(again) == pytest.approx(losses, rel=1e-9)


@pytest.mark.parametrize("alone", [False, True], ids=["split", "whole model"])
def test_windows_scored_before_memory_ran_out_are_not_scored_again(alone, model, monkeypatch):
    spec = described("document", window=9)
    prepared = prepare("x", spec, DOCUMENTS, TOKENIZERS[False], None)
    expected = prepared.evaluate(model).items["nll"]
    if alone:
        monkeypatch.setattr("mbench.evaluate.perplexity.split", lambda *_: None)
    prepared = prepare("x", spec, DOCUMENTS, TOKENIZERS[False], None)
    forward, read, seen = model.base_model.forward, [], []

    def small(*inputs, **options):
        if options["input_ids"].numel() > 20:
            raise torch.OutOfMemoryError("no")
        read.append(options["input_ids"].numel())
        return forward(*inputs, **options)

    monkeypatch.setattr(model.base_model, "forward", small)
    limit = BatchLimit(100)
    found = prepared.evaluate(model, batch_tokens=limit, advance=seen.append)
    assert list(found.items["nll"]) == pytest.approx(list(expected), rel=1e-9)
    assert limit.tokens == (100 if alone else 12) or 10 <= limit.tokens <= 25
    assert sum(seen) == prepared.tokens
    assert len(read) - len(seen) <= 2  # what compares the head by itself


def test_logits_that_are_more_than_the_head_take_the_whole_model():
    torch.manual_seed(0)
    config = GraniteMoeConfig(**SIZES, num_local_experts=4, logits_scaling=3.0)
    model = GraniteMoeForCausalLM(config).eval().double()
    model.set_experts_implementation("eager")
    prepared = prepare("x", described("gptq", window=20), DOCUMENTS, TOKENIZERS[False], None)
    found = prepared.evaluate(model)
    assert prepared.scoring == "reference"
    ids = TOKENIZERS[False]("\n\n".join(DOCUMENTS))["input_ids"][:20]
    losses, tops = zip(*(predicted(model, ids, at) for at in range(1, 20)), strict=True)
    assert found.items["nll"][0] == pytest.approx(sum(losses), rel=1e-9)
    assert np.concatenate(list(found.items["top"]))[:19].tolist() == list(tops)


def test_rotary_angles_that_follow_the_longest_window_are_those_of_each():
    rope = {"rope_type": "longrope", "rope_theta": 10_000.0, "factor": 4.0}
    rope |= {"short_factor": [1.0] * 4, "long_factor": [3.0] * 4}
    rope |= {"original_max_position_embeddings": 20}
    sizes = {"vocab_size": SIZES["vocab_size"], "head_dim": 8}
    model = tiny_model("mixtral", rope_parameters=rope, **sizes).eval().double()
    model.set_experts_implementation("eager")
    spec = described("document", window=40)
    documents = [("zqvxjkwpbm" * 3)[:count] for count in (22, 21, 20)]
    found = prepare("x", spec, documents, TOKENIZERS[False], None).evaluate(model)
    expected = []
    for ids, _ in naive_windows(spec, naive_texts(TOKENIZERS[False], spec, documents, "none"), ""):
        with torch.no_grad():
            logs = torch.log_softmax(model(torch.tensor([ids[:-1]])).logits[0].double(), -1)
        expected.append(-sum(logs[at, token].item() for at, token in enumerate(ids[1:])))
    assert len(expected) == 3
    assert list(found.items["nll"]) == pytest.approx(expected, rel=1e-9)


def test_one_mask_never_sees_another_and_nan_is_an_error():
    model = make_model()
    prepared = prepare(
        "wiki", described("sliding", window=20, stride=10), DOCUMENTS, TOKENIZERS[False], None
    )
    before = prepared.evaluate(model).items
    weights = model.model.layers[0].mlp.experts.down_proj
    saved = weights.detach().clone()
    with torch.no_grad():
        weights.zero_()
        masked = prepared.evaluate(model).items
        weights.copy_(saved)
    assert before.equals(prepared.evaluate(model).items)
    assert list(before["item"]) == list(masked["item"])
    assert not np.isclose(before["nll"], masked["nll"]).any()
    with torch.no_grad():
        weights.fill_(math.nan)
    with pytest.raises(TaskError, match=r"'wiki': the loss of window 0 is nan"):
        prepared.evaluate(model)
