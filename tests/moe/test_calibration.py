"""Calibration sequences: which tokens are in them, and where BOS stands."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import pytest

from helpers.tiny_models import mixtral, save
from mbench.core.errors import CorpusError
from mbench.core.suite_inputs import CorpusSpec, TextSource
from mbench.moe.calibration import refuse_too_long, sequences
from mbench.moe.load import load

BOS = 1
# No word begins with one of the special tokens w0, w1 and w2, which are found inside words.
DOCUMENTS = ["w5 w6 w7 w8 w9 w60 w61", "", "w50", "w30 w31 w32 w33", "w40 w41 w42"]
WORDS = [[int(word[1:]) for word in document.split()] for document in DOCUMENTS]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return load(str(save(mixtral(), tmp_path_factory.mktemp("model"))), device="cpu").tokenizer


def cut(tokenizer, packing, bos, count=2, length=5, documents=DOCUMENTS):
    spec = CorpusSpec(
        source=TextSource(plugin="none"), sequences=count, length=length, packing=packing, bos=bos
    )
    text = SimpleNamespace(name="corpora.x", in_parts=lambda: documents)
    found = sequences(text, spec, tokenizer)
    return [row[:length].tolist() for row, length in zip(found.ids, found.lengths, strict=True)]


def streams(bos):
    """What the shuffled documents may be joined to: every order of those that are not blank."""
    written = [words for words in WORDS if words]
    for order in itertools.permutations(written):
        yield [token for words in order for token in ([BOS] * (bos == "document") + words)]


@pytest.mark.parametrize("bos", [None, "none", "document", "window"])
def test_joined_documents_are_cut_one_after_the_other(tokenizer, bos):
    room = 4 if bos == "window" else 5
    rows = cut(tokenizer, "concatenate", bos)
    expected = [
        [[BOS] * (bos == "window") + stream[at : at + room] for at in (0, room)]
        for stream in streams(bos)
    ]
    assert rows in expected


@pytest.mark.parametrize("bos", [None, "none", "document", "window"])
def test_contiguous_sequences_are_parts_of_the_joined_text(tokenizer, bos):
    room = 4 if bos == "window" else 5
    stream = [t for words in WORDS for t in ([BOS] * bool(bos == "document" and words) + words)]
    parts = [stream[at : at + room] for at in range(0, len(stream) - room + 1, room)]
    expected = [[BOS] * (bos == "window") + part for part in parts]
    rows = cut(tokenizer, "contiguous", bos)
    assert [row for row in expected if row in rows] == rows
    assert cut(tokenizer, "contiguous", bos, count=len(parts)) == expected


@pytest.mark.parametrize("bos", [None, "none", "document", "window"])
def test_a_sequence_of_one_document_begins_with_it(tokenizer, bos):
    begin = [BOS] if bos in ("document", "window") else []
    rows = cut(tokenizer, "document", bos, count=4)
    assert sorted(rows) == sorted((begin + words)[:5] for words in WORDS if words)


def test_what_cannot_be_cut_is_one_line(tokenizer):
    with pytest.raises(CorpusError, match=r"corpora.x: .* 4 sequences of 5 .* has 15 .* for 3"):
        cut(tokenizer, "concatenate", "none", count=4)
    with pytest.raises(CorpusError, match=r"x: sequences of 1 token have no room beside"):
        cut(tokenizer, "concatenate", "window", length=1)
    with pytest.raises(CorpusError, match="x: sequences of 65 tokens, but the model has 64 pos"):
        refuse_too_long("x", 65, 64)
    refuse_too_long("x", 65, 65)
    refuse_too_long("x", 65, None)
