"""Perplexity: each protocol against a token-by-token loop, whatever the lengths."""

import copy
import math
from itertools import groupby, pairwise
from operator import itemgetter

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

from helpers.tokenizers_by_kind import SAMPLE
from helpers.tokenizers_by_kind import TOKENIZERS as KINDS
from mbench.core.batch_limit import BatchLimit
from mbench.core.errors import CorpusError, TaskError
from mbench.core.suite import PerplexityTask
from mbench.core.suite_inputs import TextSource
from mbench.evaluate import lm_head
from mbench.evaluate.perplexity import prepare
from mbench.evaluate.windows import lay_out, windows_of
from mbench.moe import tokens
from mbench.moe.tokens import tokenise

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
def predicted(model, ids, at):
    """Loss of the token at one place of a window [n], and the most likely token there."""
    logits = model(torch.tensor([ids[:at]])).logits[0, -1]
    return -torch.log_softmax(logits, -1)[ids[at]].item(), logits.argmax().item()


BOS = 0


def naive_texts(tokenizer, spec, documents, where):
    """Token ids of every text, by the words of `PerplexityTask`."""

    def ids(text):
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    if spec.protocol == "document":
        texts = [ids(document) for document in documents]
        return [[BOS, *text] for text in texts] if where in ("document", "text") else texts
    if where == "document":
        whole = []
        for number, document in enumerate(documents):
            after = "" if number == len(documents) - 1 else spec.join
            whole += [BOS] * bool(document.strip()) + ids(document + after)
        return [whole]
    return [[BOS] * (where == "text") + ids(spec.join.join(documents))]


def naive_documents(spec, documents, where):
    """The document of every token of every text; None for BOS."""

    def count(text):
        return len(TOKENIZERS[False].encode(text))

    if spec.protocol == "document":
        before = [None] * (where in ("document", "text"))
        return [before + [number] * count(text) for number, text in enumerate(documents)]
    after = [spec.join] * (len(documents) - 1) + [""]
    if where == "document":
        ended = enumerate(zip(documents, after, strict=True))
        return [
            [
                own
                for n, (text, join) in ended
                for own in [None] * bool(text.strip()) + [n] * count(text + join)
            ]
        ]
    ended = enumerate(zip(documents, after, strict=True))
    owners = [number for number, (text, join) in ended for _ in text + join]
    encoded = TOKENIZERS[False](spec.join.join(documents), return_offsets_mapping=True)
    return [[None] * (where == "text") + [owners[start] for start, _ in encoded["offset_mapping"]]]


def naive_windows(spec, texts, where):
    """(tokens, places in them that are predicted) of each window, by the same words."""
    begin = [BOS] if where == "window" else []
    context = 0 if begin else 1
    room = spec.window - len(begin)
    windows = []
    for ids in texts:
        if spec.protocol == "document":
            at = context
            last = len(windows) + (spec.windows_per_document or len(ids))
            while at < len(ids) and len(windows) < last:
                stop = min(at + spec.window, len(ids))
                windows.append((ids[at - context : stop], context))
                at = stop
        elif spec.protocol == "gptq":
            for start in range(0, len(ids) - room + 1, room):
                windows.append((ids[start : start + room], context))
        elif len(ids) >= room:
            start, done = 0, context
            while done < len(ids):
                stop = min(start + room, len(ids))
                windows.append((ids[start:stop], done - start))
                start, done = start + spec.stride, stop
    found = []
    for own, first in windows:
        places = [at for at in range(first, len(own)) if own[at] != BOS]
        found.append((begin + own, [at + len(begin) for at in places]))
    return [window for window in found if window[1]][: spec.max_windows]


PLACEMENTS = ["none", "text", "document", "window"]


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


@pytest.mark.parametrize(
    ("protocol", "expected"), [("gptq", "text"), ("sliding", "window"), ("document", "window")]
)
def test_bos_stands_where_the_tokenizer_and_the_protocol_put_it(protocol, expected):
    stride = 5 if protocol == "sliding" else None
    spec = described(protocol, window=12, stride=stride)
    for bos, where in ((False, "none"), (True, expected)):
        found = windows_of("x", spec, DOCUMENTS, TOKENIZERS[bos])
        asked = windows_of("x", spec.model_copy(update={"bos": where}), DOCUMENTS, TOKENIZERS[bos])
        naively = naive_windows(spec, naive_texts(TOKENIZERS[bos], spec, DOCUMENTS, where), where)
        assert found.windows == asked.windows
        assert found.begin_with_bos == sum(ids[0] == BOS for ids, _ in naively)
    none = make_tokenizer()
    none.bos_token = None
    with pytest.raises(CorpusError, match="`bos: window` is asked for, but the tokenizer has no"):
        windows_of("x", spec.model_copy(update={"bos": "window"}), DOCUMENTS, none)


def test_the_published_protocol_is_that_of_a_text_encoded_by_the_tokenizers_defaults():
    spec = described("gptq", window=17)
    found = windows_of("x", spec, DOCUMENTS, TOKENIZERS[True])
    ids = TOKENIZERS[True]("\n\n".join(DOCUMENTS))["input_ids"]
    read = [found.texts[0].ids[w.start : w.stop].tolist() for w in found.windows]
    assert read == [ids[at : at + 17] for at in range(0, len(ids) - 16, 17)]
    assert found.bos is None
    assert found.begin_with_bos == 1


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    documents=st.lists(st.text(max_size=60), min_size=1, max_size=5),
    window=st.integers(2, 20),
    stride=st.integers(1, 19),
    protocol=st.sampled_from(["sliding", "gptq", "document"]),
    where=st.sampled_from(PLACEMENTS),
)
@example(["🙂🙂"], 4, 1, "sliding", "none")
def test_every_token_is_scored_once_and_bytes_add_up(documents, window, stride, protocol, where):
    stride = min(stride, window - 1) if protocol == "sliding" else None
    spec = described(protocol, window=window, stride=stride, bos=where)
    begun = where == "window"
    for number, text in enumerate(naive_texts(TOKENIZERS[False], spec, documents, where)):
        count = len(text)
        windows = list(lay_out(spec, number, count, begun=begun))
        scored = [at for w in windows for at in range(w.stop - w.scored, w.stop)]
        room = window - begun
        if protocol == "gptq":
            wanted = [at for at in range(count - count % room) if at % room or begun]
        elif protocol == "sliding" and count < room:
            wanted = []
        else:
            wanted = list(range(0 if begun else 1, count))
        assert scored == wanted
        assert all(w.start <= w.stop - w.scored - (not begun) for w in windows)
        most = window + (protocol == "document" and not begun)
        assert all(w.stop - w.start + begun <= max(most, window + 1) for w in windows)
        if protocol == "sliding":
            assert all(b.start - a.start == stride for a, b in pairwise(windows))
    try:
        found = windows_of("x", spec, documents, TOKENIZERS[False])
    except CorpusError:
        return
    texts = documents if protocol == "document" else [spec.join.join(documents)]
    assert [int(text.size.sum()) for text in found.texts] == [len(each.encode()) for each in texts]
    assert all((text.size >= 0).all() for text in found.texts)


def test_a_character_of_several_tokens_counts_for_the_first():
    assert tokenise("a🙂b", TOKENIZERS[False]).size.tolist() == [1, 4, 0, 0, 0, 1]


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
    prepared = prepare("x", described("gptq", window=20), DOCUMENTS, TOKENIZERS[False], None)
    found = prepared.evaluate(model)
    assert prepared.scoring == "reference"
    ids = TOKENIZERS[False]("\n\n".join(DOCUMENTS))["input_ids"][:20]
    losses, tops = zip(*(predicted(model, ids, at) for at in range(1, 20)), strict=True)
    assert found.items["nll"][0] == pytest.approx(sum(losses), rel=1e-9)
    assert np.concatenate(list(found.items["top"]))[:19].tolist() == list(tops)


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


def test_too_little_text_and_too_long_windows_are_one_line():
    for spec in (
        described("sliding", window=500, stride=250),
        described("gptq", window=500),
    ):
        with pytest.raises(CorpusError, match=r"'short': the text has \d+ tokens, .* at least 500"):
            prepare("short", spec, DOCUMENTS, TOKENIZERS[False], None)
    with pytest.raises(CorpusError, match="at least 2 in one document"):
        prepare("short", described("document", window=9), ["", "a"], TOKENIZERS[False], None)
    for protocol, read in (("gptq", 19), ("document", 20)):
        spec = described(protocol, window=20)
        message = f"'x' has windows of {read} tokens, but the model has {read - 1} positions"
        with pytest.raises(TaskError, match=message):
            prepare("x", spec, DOCUMENTS, TOKENIZERS[False], read - 1)
        prepare("x", spec, DOCUMENTS, TOKENIZERS[False], read)


@pytest.mark.parametrize("where", PLACEMENTS)
@pytest.mark.parametrize("protocol", ["sliding", "gptq", "document"])
def test_no_more_is_read_than_the_first_windows_need(protocol, where, monkeypatch):
    for name, characters in (("WHOLE", 100), ("PIECE", 100), ("OVERLAP", 40)):
        monkeypatch.setattr(tokens, name, characters)
    settings = {"window": 20, "stride": 5 if protocol == "sliding" else None, "bos": where}
    documents = [*DOCUMENTS, *(f"the dog {number} and the cat" for number in range(300))]
    read = []

    def in_parts():
        for document in documents:
            read.append(document)
            yield [document[:5], document[5:]]

    every = windows_of("x", described(protocol, **settings), in_parts(), TOKENIZERS[False])
    assert len(read) == len(documents)
    for most in (1, 3, 30):
        read.clear()
        spec = described(protocol, **settings, max_windows=most)
        found = windows_of("x", spec, in_parts(), TOKENIZERS[False])
        assert found.windows == every.windows[:most]
        for window in found.windows:
            for of in ("ids", "size", "is_bos"):
                some, all_of_it = (getattr(w.texts[window.text], of) for w in (found, every))
                inside = slice(window.start, window.stop)
                assert some[inside].tolist() == all_of_it[inside].tolist()
        assert len(read) < len(documents) / 2


@pytest.mark.parametrize("where", PLACEMENTS)
@pytest.mark.parametrize("kind", KINDS)
def test_no_more_of_a_document_is_tokenised_than_its_windows_need(kind, where, monkeypatch):
    for name, characters in (("WHOLE", 100), ("PIECE", 120), ("OVERLAP", 60)):
        monkeypatch.setattr(tokens, name, characters)
    tokenizer = copy.deepcopy(KINDS[kind])
    tokenizer.add_special_tokens({"bos_token": "<s>"})
    heading = "\n = A title = \n"
    long = [f"{SAMPLE[0]}{number} {SAMPLE[1]}{heading * (number == 30)}" for number in range(40)]
    settings = {"window": 15, "bos": where}
    documents = [long, ["a dog"], long[::-1], [""], long[7:]]
    every = windows_of("x", described("document", **settings), documents, tokenizer)
    spec = described("document", **settings, windows_per_document=2)
    found = windows_of("x", spec, documents, tokenizer)
    first = [[w for w in every.windows if w.text == text][:2] for text in range(len(documents))]
    assert list(found.windows) == [window for windows in first for window in windows]
    assert found.kind == every.kind == "wikitext"
    for text, windows in enumerate(first):
        end = max((window.stop for window in windows), default=0)
        for of in ("ids", "size", "is_bos", "begin"):
            some, all_of_it = (getattr(w.texts[text], of)[:end] for w in (found, every))
            assert some.tolist() == all_of_it.tolist()
    assert len(found.texts[0].ids) < len(every.texts[0].ids) / 3
