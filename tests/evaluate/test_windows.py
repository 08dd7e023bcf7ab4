"""Windows: which tokens they hold and score, where BOS stands, how much is read for them."""

import copy
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from helpers.naive_perplexity import (
    BOS,
    DOCUMENTS,
    PLACEMENTS,
    TOKENIZERS,
    described,
    make_tokenizer,
    naive_texts,
    naive_windows,
)
from helpers.tokenizers_by_kind import SAMPLE
from helpers.tokenizers_by_kind import TOKENIZERS as KINDS
from mbench.core.errors import CorpusError, TaskError
from mbench.evaluate.perplexity import prepare
from mbench.evaluate.windows import lay_out, windows_of
from mbench.moe import tokens
from mbench.moe.tokens import tokenise


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
    monkeypatch.setattr("mbench.evaluate.windows.JOINED", 30)
    again = windows_of("x", described(protocol, **settings), in_parts(), TOKENIZERS[False])
    assert [text.begin.tolist() for text in again.texts] == [
        text.begin.tolist() for text in every.texts
    ]
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
