"""The demo's tokenizer, and text as tokens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

END_OF_TEXT = "<|endoftext|>"


def train_tokenizer(texts: dict[str, list[str]], vocabulary: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of `vocabulary` entries, END_OF_TEXT included.

    Args:
        texts: documents by corpus. Every corpus counts equally: documents are taken in order until
            a corpus has given as many characters as the smallest one has.
        vocabulary: number of tokens.
    """
    share = min(sum(map(len, documents)) for documents in texts.values())
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(
        (text for documents in texts.values() for text in _until(documents, share)), trainer
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
    )


def token_stream(tokenizer: PreTrainedTokenizerBase, documents: Iterable[str]) -> torch.Tensor:
    """All documents as one row of token ids, END_OF_TEXT before each document; shape (tokens,)."""
    ids: list[int] = []
    for encoding in tokenizer(list(documents))["input_ids"]:
        ids.append(tokenizer.eos_token_id)
        ids.extend(encoding)
    return torch.tensor(ids)


def windows(stream: torch.Tensor, length: int) -> torch.Tensor:
    """Rows of `length` successive tokens, what is left over dropped; shape (rows, length)."""
    rows = len(stream) // length
    return stream[: rows * length].view(rows, length)


def _until(documents: list[str], characters: int) -> Iterator[str]:
    for text in documents:
        if characters <= 0:
            return
        yield text[:characters]
        characters -= len(text)
