"""Tokens of a text in pieces are those of the whole, whatever the tokenizer and the text."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from helpers.tokenizers_by_kind import SAMPLE, TOKENIZERS
from mbench.moe import tokens
from mbench.moe.tokens import tokenise, tokens_of

WORDS = st.one_of(
    st.sampled_from(
        ["the", " ", "\n", "\n\n", "a" * 9, "dog", "12345", "  ", "é", "e\u0301", "🙂"]
    ),
    st.text(max_size=4),
)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    monkeypatch.setattr(tokens, "WHOLE", 50)
    monkeypatch.setattr(tokens, "PIECE", 120)
    monkeypatch.setattr(tokens, "OVERLAP", 60)


def in_pieces(parts, tokenizer):
    found = list(tokens_of(parts, tokenizer))
    ids = np.concatenate([each.ids for each in found])
    return len(found), ids.tolist(), np.concatenate([each.size for each in found]).tolist()


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=60, deadline=None)
@given(parts=st.lists(WORDS, max_size=400))
@example(parts=[])
@example(parts=["a"] * 1000)
@example(parts=[" "] * 999)
def test_pieces_give_the_tokens_of_the_whole(name, parts):
    text = "".join(parts)
    whole = TOKENIZERS[name](text, add_special_tokens=False)["input_ids"]
    _, ids, size = in_pieces(parts, TOKENIZERS[name])
    assert ids == whole
    assert size == tokenise(text, TOKENIZERS[name]).size.tolist()
    assert sum(size) == (len(text.encode()) if whole else 0)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_text_is_read_piece_by_piece(name):
    text = SAMPLE[0] * 40
    count, ids, _ = in_pieces([text[:7], text[7:50], *text[50:]], TOKENIZERS[name])
    assert count > 10
    assert ids == TOKENIZERS[name](text, add_special_tokens=False)["input_ids"]
    read = []
    parts = (read.append(part) or part for part in text)
    next(tokens_of(parts, TOKENIZERS[name]))
    assert len(read) < 400
