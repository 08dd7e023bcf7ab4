"""Calibration sequences are those of a text that is held, joined and tokenised as a whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.text_formats import json_lines
from helpers.tokenizers_by_kind import TOKENIZERS
from mbench.core.errors import CorpusError
from mbench.core.suite_inputs import CorpusSpec, TextSource
from mbench.moe import tokens
from mbench.moe.calibration import sequences
from mbench.storage.texts import Text

BOS = 0
DOCUMENTS = st.lists(
    st.one_of(
        st.sampled_from(["", " \n", "the cat and the dog", "aaaa " * 30, "Füße 日本 🙂"]),
        st.text(max_size=20),
    ),
    max_size=12,
)


def naively(documents, spec, tokenizer):
    """(ids, length) of each sequence, by the words of `CorpusSpec`; None: there are too few."""

    def ids(text):
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    def cut(stream):
        begin = [BOS] if spec.bos == "window" else []
        room = spec.length - len(begin)
        starts = range(0, len(stream) - room + 1, room)
        return [begin + stream[start : start + room] for start in starts]

    before = [BOS] if spec.bos == "document" else []
    draw = np.random.default_rng(spec.seed)
    if spec.packing == "contiguous":
        joins = [spec.join] * (len(documents) - 1) + [""]
        stream = ids(spec.join.join(documents))
        if before:
            stream = []
            for document, join in zip(documents, joins, strict=False):
                stream += before * bool(document.strip()) + ids(document + join)
        rows = cut(stream)
        if len(rows) < spec.sequences:
            return None
        chosen = sorted(draw.permutation(len(rows))[: spec.sequences])
        return [(rows[at], spec.length) for at in chosen]
    written = [document for document in documents if document.strip()]
    shuffled = [written[at] for at in draw.permutation(len(written))]
    if spec.packing == "document":
        begin = [BOS] if spec.bos in ("window", "document") else []
        rows = [(begin + ids(document))[: spec.length] for document in shuffled]
        if len(rows) < spec.sequences:
            return None
        padded = [row + [0] * (spec.length - len(row)) for row in rows]
        return list(zip(padded, map(len, rows), strict=True))[: spec.sequences]
    stream = []
    for number, document in enumerate(shuffled):
        if before:
            stream += before + ids(document + spec.join * (number < len(shuffled) - 1))
        else:
            stream += ids(spec.join * (number > 0) + document)
    rows = cut(stream)[: spec.sequences]
    return [(row, spec.length) for row in rows] if len(rows) == spec.sequences else None


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    monkeypatch.setattr(tokens, "WHOLE", 50)
    monkeypatch.setattr(tokens, "PIECE", 80)
    monkeypatch.setattr(tokens, "OVERLAP", 30)


@pytest.mark.parametrize("packing", ["concatenate", "contiguous", "document"])
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    documents=DOCUMENTS,
    count=st.integers(1, 4),
    length=st.integers(2, 12),
    bos=st.sampled_from(["none", "window", "document"]),
    join=st.sampled_from(["\n\n", "", " and "]),
    seed=st.integers(0, 3),
    kind=st.sampled_from(sorted(TOKENIZERS)),
    name=st.sampled_from(["a.jsonl", "a.txt"]),
)
def test_sequences_are_those_of_the_whole_text(
    packing, documents, count, length, bos, join, seed, kind, name, tmp_path
):
    path = Path(tmp_path / name)
    if name == "a.txt":
        documents = ["".join(documents).replace("\0", "").replace("\r", "")]
        path.write_text(documents[0], encoding="utf-8", newline="")
    else:
        path.write_bytes(json_lines(documents))
    tokenizer = TOKENIZERS[kind]
    tokenizer.bos_token = tokenizer.convert_ids_to_tokens(BOS)
    source = TextSource(files=(str(path),))
    spec = CorpusSpec(
        source=source,
        sequences=count,
        length=length,
        packing=packing,
        join=join,
        seed=seed,
        bos=bos,
    )
    expected = naively(documents, spec, tokenizer)
    text = Text("corpora.x", source, {})
    if expected is None:
        with pytest.raises(CorpusError, match=r"corpora\.x: the suite asks for"):
            sequences(text, spec, tokenizer)
        return
    cut = sequences(text, spec, tokenizer)
    assert cut.ids.dtype == np.int64
    assert list(zip(cut.ids.tolist(), cut.lengths.tolist(), strict=True)) == expected
