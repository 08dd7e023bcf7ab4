"""A tokenizer beside its model: ids that the embedding has, padding, and files that are damaged."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from helpers.tiny_models import VOCABULARY, mixtral, save
from mbench.core.errors import CorpusError, UnsupportedModel
from mbench.moe.load import load
from mbench.moe.tokenizer import adds_bos, bos_at


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return save(mixtral(), tmp_path_factory.mktemp("original"))


@pytest.fixture
def checkpoint(original, tmp_path):
    return shutil.copytree(original, tmp_path / "checkpoint")


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def added(checkpoint, content):
    """One more token, with the first id that the embedding has no row for."""
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    token = {"id": VOCABULARY, "content": content, "special": True, **flags}
    path = checkpoint / "tokenizer.json"
    edit(path, added_tokens=[*json.loads(path.read_text())["added_tokens"], token])


def begins_with(checkpoint, token):
    text = {"Sequence": {"id": "A", "type_id": 0}}
    single = [{"SpecialToken": {"id": "[X]", "type_id": 0}}, text]
    known = {"[X]": {"id": "[X]", "ids": [token], "tokens": ["[X]"]}}
    processor = {"type": "TemplateProcessing", "special_tokens": known}
    pair = [text, {"Sequence": {"id": "B", "type_id": 1}}]
    edit(checkpoint / "tokenizer.json", post_processor=processor | {"single": single, "pair": pair})


def unknown_end(checkpoint):
    """transformers gives a special token that is not in the vocabulary the next id."""
    edit(checkpoint / "tokenizer_config.json", eos_token="</s>")


def only_sentencepiece(checkpoint):
    (checkpoint / "tokenizer.json").unlink()
    (checkpoint / "tokenizer.model").write_bytes(b"\n\x10nothing that could be read")
    edit(checkpoint / "tokenizer_config.json", tokenizer_class="LlamaTokenizer")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: added(path, "<new>"), r"ids up to 64 \('<new>'\), but the embedding has 64"),
        (lambda path: begins_with(path, 99), "ids up to 99 .* but the embedding has 64 rows"),
        (unknown_end, r"ids up to 64 \('</s>'\), but the embedding has 64 rows"),
        (lambda path: (path / "tokenizer.json").write_text("{"), "tokenizer.json is not JSON"),
        (lambda path: (path / "tokenizer.json").write_text("[]"), "tokenizer.json is not a JSON"),
        (lambda path: (path / "tokenizer.json").write_text("{}"), "its tokenizer cannot be loaded"),
        (lambda path: (path / "tokenizer_config.json").write_bytes(b"\xff"), "config.json is not"),
        (only_sentencepiece, "its tokenizer"),
    ],
)
def test_a_tokenizer_that_does_not_fit_or_cannot_be_read_is_one_line(checkpoint, damage, message):
    damage(checkpoint)
    with pytest.raises(UnsupportedModel, match=message) as caught:
        load(str(checkpoint), device="cpu")
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"model {checkpoint}: ")


@torch.no_grad()
def test_padding_is_an_id_that_the_model_has_and_changes_no_figure(checkpoint):
    added(checkpoint, "[PAD]")
    edit(checkpoint / "tokenizer_config.json", pad_token="[PAD]")
    edit(checkpoint / "config.json", pad_token_id=VOCABULARY)
    loaded = load(str(checkpoint), device="cpu")
    assert loaded.tokenizer.pad_token == "w2"
    batch = loaded.tokenizer(["w5 w6 w7 w8 w9", "w9 w3"], padding=True, return_tensors="pt")
    seen = batch["attention_mask"].bool()
    expected = loaded.model(**batch).logits[seen]
    alone = loaded.model(torch.tensor([[9, 3]])).logits[0]
    torch.testing.assert_close(expected[-2:], alone)
    for other in (0, 33, VOCABULARY - 1):
        ids = torch.where(seen, batch["input_ids"], other)
        found = loaded.model(ids, attention_mask=batch["attention_mask"]).logits[seen]
        torch.testing.assert_close(found, expected)


def test_without_special_tokens_nothing_ordinary_becomes_one(checkpoint):
    """What pads is left out of answers, so that it must not be a word."""
    edit(checkpoint / "tokenizer_config.json", pad_token=None, bos_token=None, eos_token=None)
    assert load(str(checkpoint), device="cpu").tokenizer.pad_token is None


def test_where_bos_stands_follows_the_tokenizer_and_the_suite(checkpoint):
    tokenizer = load(str(checkpoint), device="cpu").tokenizer
    assert not adds_bos(tokenizer)
    assert bos_at(tokenizer, None, "window") == ("none", None)
    assert bos_at(tokenizer, "document", "window") == ("document", 1)
    begins_with(checkpoint, 1)
    tokenizer = load(str(checkpoint), device="cpu").tokenizer
    assert adds_bos(tokenizer)
    assert bos_at(tokenizer, None, "window") == ("window", 1)
    assert bos_at(tokenizer, "none", "window") == ("none", None)
    tokenizer.bos_token = None
    with pytest.raises(CorpusError, match="`bos: window` is asked for"):
        bos_at(tokenizer, "window", "window")
