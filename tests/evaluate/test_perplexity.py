"""Perplexity: each protocol against a token-by-token loop, whatever the lengths."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    GraniteMoeConfig,
    GraniteMoeForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2MoeConfig,
    Qwen2MoeForCausalLM,
)

from mbench.core.errors import CorpusError, TaskError
from mbench.core.suite import PerplexityTask, TextSource
from mbench.evaluate import lm_head
from mbench.evaluate.perplexity import lay_out, prepare, tokenise

SIZES = {
    "vocab_size": 320,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "num_experts_per_tok": 2,
    "initializer_range": 0.5,
}
DOCUMENTS = [
    "Ein Fuß, zwei Füße: 日本 🙂!\n",
    "",
    "a",
    "the cat and the dog and the cat " * 4,
    "x y",
]


def described(protocol, **settings):
    """As a suite describes it; the text itself is given apart."""
    return PerplexityTask(source=TextSource(plugin="none"), protocol=protocol, **settings)


def make_tokenizer(bos=False):
    tokens = Tokenizer(models.BPE())
    tokens.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokens.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=SIZES["vocab_size"],
        special_tokens=["<s>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokens.train_from_iterator(["the cat and the dog"], trainer)
    if bos:
        tokens.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", 0)]
        )
    return PreTrainedTokenizerFast(tokenizer_object=tokens, bos_token="<s>")


TOKENIZERS = {bos: make_tokenizer(bos) for bos in (False, True)}


def make_model():
    torch.manual_seed(0)
    config = Qwen2MoeConfig(
        **SIZES, moe_intermediate_size=8, shared_expert_intermediate_size=8, num_experts=4
    )
    model = Qwen2MoeForCausalLM(config).eval().double()
    model.set_experts_implementation("eager")
    return model


@pytest.fixture(scope="module")
def model():
    return make_model()


@torch.no_grad()
def naive(model, ids, first, stop):
    """Losses of tokens `first` .. `stop` - 1 of a window [n], one forward for each."""
    losses = []
    for at in range(first, stop):
        logits = model(torch.tensor([ids[:at]])).logits[0, -1]
        losses.append(-torch.log_softmax(logits, -1)[ids[at]].item())
    return sum(losses)


def naive_windows(spec, texts):
    """(text, first token read, first token scored, stop) by the words of `PerplexityTask`."""
    windows = []
    for number, ids in enumerate(texts):
        count = len(ids)
        if spec.protocol == "document":
            at = 1
            while at < count:
                stop = min(at + spec.window, count)
                windows.append((number, at - 1, at, stop))
                at = stop
        elif spec.protocol == "gptq":
            for start in range(0, count - spec.window + 1, spec.window):
                windows.append((number, start, start + 1, start + spec.window))
        else:
            start, done = 0, 1
            while done < count:
                stop = min(start + spec.window, count)
                windows.append((number, start, done, stop))
                start, done = start + spec.stride, stop
    return windows[: spec.max_windows]


def encoded(tokenizer, spec, documents):
    texts = documents if spec.protocol == "document" else [spec.join.join(documents)]
    return texts, [tokenizer(text)["input_ids"] for text in texts]


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize(
    "spec",
    [
        described("sliding", window=24, stride=7),
        described("sliding", window=24, stride=23, join="", max_windows=3),
        described("gptq", window=17),
        described("document", window=9),
    ],
    ids=lambda spec: f"{spec.protocol}-{spec.stride}",
)
def test_equals_a_token_by_token_loop(spec, bos, model, monkeypatch):
    monkeypatch.setattr(lm_head, "MOST_LOGITS", 5 * SIZES["vocab_size"])  # the head in many pieces
    seen = []
    prepared = prepare("x", spec, DOCUMENTS, TOKENIZERS[bos])
    found = prepared.evaluate(model, batch_tokens=60, advance=seen.append)
    _, texts = encoded(TOKENIZERS[bos], spec, DOCUMENTS)
    windows = naive_windows(spec, texts)
    losses = [
        naive(model, texts[number][start:stop], first - start, stop - start)
        for number, start, first, stop in windows
    ]
    assert prepared.scoring == "split"
    assert list(found.items["nll"]) == pytest.approx(losses, rel=1e-9)
    assert list(found.items["tokens"]) == [stop - first for _, _, first, stop in windows]
    figures = {metric.name: metric.value for metric in found.metrics}
    tokens = sum(stop - first for _, _, first, stop in windows)
    assert figures["perplexity"] == pytest.approx(math.exp(sum(losses) / tokens), rel=1e-9)
    assert sum(seen) == prepared.tokens
    assert found.items["item"].is_unique
    # Batches of other sizes change nothing but rounding.
    again = prepared.evaluate(model, batch_tokens=1).items["nll"]
    assert list(again) == pytest.approx(losses, rel=1e-9)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    documents=st.lists(st.text(max_size=60), min_size=1, max_size=5),
    window=st.integers(2, 20),
    stride=st.integers(1, 19),
    protocol=st.sampled_from(["sliding", "gptq", "document"]),
    bos=st.booleans(),
)
@example(["🙂🙂"], 4, 1, "sliding", False)
def test_every_token_is_scored_once_and_bytes_add_up(documents, window, stride, protocol, bos):
    stride = min(stride, window - 1) if protocol == "sliding" else None
    spec = described(protocol, window=window, stride=stride)
    tokenizer = TOKENIZERS[bos]
    texts, ids = encoded(tokenizer, spec, documents)
    for number, (text, expected) in enumerate(zip(texts, ids, strict=True)):
        tokens = tokenise(text, tokenizer)
        assert tokens.ids.tolist() == expected
        assert tokens.size.sum() == len(text.encode())
        assert (tokens.size >= 0).all()
        windows = list(lay_out(spec, number, tokens))
        scored = [at for w in windows for at in range(w.stop - w.scored, w.stop)]
        count = len(expected)
        if protocol == "document":
            wanted = list(range(1, count))
        elif count < window:
            wanted = []
        elif protocol == "sliding":
            wanted = list(range(1, count))
        else:
            wanted = [at for at in range(count - count % window) if at % window]
        assert scored == wanted
        assert all(w.start < w.stop - w.scored and w.read <= window for w in windows)
        if protocol == "sliding":
            assert all(b.start - a.start == stride for a, b in pairwise(windows))
        if bos and wanted and protocol != "gptq":
            size = sum(int(tokens.size[w.stop - w.scored : w.stop].sum()) for w in windows)
            assert size == len(text.encode())


def test_a_character_of_several_tokens_counts_for_the_first():
    tokens = tokenise("a🙂b", TOKENIZERS[False])
    assert tokens.size.tolist() == [1, 4, 0, 0, 0, 1]


class Slow:
    """A tokenizer without offsets."""

    is_fast = False
    bos_token_id = None

    def __call__(self, text, **options):
        return {"input_ids": list(range(len(text.split())))}


def test_without_offsets_bytes_are_shared_out():
    assert tokenise("ab cd ef é", Slow()).size.tolist() == [2, 3, 3, 3]
    assert tokenise("", Slow()).size.tolist() == []


def test_logits_that_are_more_than_the_head_take_the_whole_model():
    torch.manual_seed(0)
    config = GraniteMoeConfig(**SIZES, num_local_experts=4, logits_scaling=3.0)
    model = GraniteMoeForCausalLM(config).eval().double()
    model.set_experts_implementation("eager")
    prepared = prepare("x", described("gptq", window=20), DOCUMENTS, TOKENIZERS[False])
    found = prepared.evaluate(model)
    assert prepared.scoring == "reference"
    ids = TOKENIZERS[False]("\n\n".join(DOCUMENTS))["input_ids"][:20]
    assert found.items["nll"][0] == pytest.approx(naive(model, ids, 1, 20), rel=1e-9)


def test_one_mask_never_sees_another_and_nan_is_an_error():
    model = make_model()
    prepared = prepare(
        "wiki", described("sliding", window=20, stride=10), DOCUMENTS, TOKENIZERS[False]
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


def test_too_little_text_and_too_long_windows_are_one_line(model):
    for spec in (
        described("sliding", window=500, stride=250),
        described("gptq", window=500),
    ):
        with pytest.raises(CorpusError, match=r"'short': the text has \d+ tokens, .* at least 500"):
            prepare("short", spec, DOCUMENTS, TOKENIZERS[False])
    with pytest.raises(CorpusError, match="at least 2 in one document"):
        prepare("short", described("document", window=9), ["", "a"], TOKENIZERS[False])
    long = make_model()
    long.config.max_position_embeddings = 8
    prepared = prepare("x", described("gptq", window=20), DOCUMENTS, TOKENIZERS[False])
    with pytest.raises(TaskError, match="the model has 8 positions"):
        prepared.evaluate(long)
