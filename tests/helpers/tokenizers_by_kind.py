"""Small fast tokenizers of each kind that checkpoints come with."""

from __future__ import annotations

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

SAMPLE = [
    "the cat and the dog, 1234 and 99!\n\nthe  the\tdog don't  aaaa aaaaaaaa\n",
    "Ein Fuß, zwei Füße: 日本 🙂!\n cafe\u0301 é",
] * 3
_ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())
_SPLIT = (  # of Llama 3
    r"(?i:'s|'t)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _byte_level():
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return made, trainers.BpeTrainer(vocab_size=330, initial_alphabet=_ALPHABET)


def _split_by_a_pattern():
    made = Tokenizer(models.BPE())
    made.normalizer = normalizers.NFC()
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return made, trainers.BpeTrainer(vocab_size=330, initial_alphabet=_ALPHABET)


def _never_split():
    """As those of Llama 2: the whole text is one word."""
    made = Tokenizer(models.BPE(unk_token="<unk>"))
    made.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    return made, trainers.BpeTrainer(vocab_size=120, special_tokens=["<unk>"])


def _unigram():
    made = Tokenizer(models.Unigram())
    made.normalizer = normalizers.NFKC()
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    return made, trainers.UnigramTrainer(
        vocab_size=120, special_tokens=["<unk>"], unk_token="<unk>"
    )


def _word_piece():
    made = Tokenizer(models.WordPiece(unk_token="<unk>"))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return made, trainers.WordPieceTrainer(vocab_size=120, special_tokens=["<unk>"])


def _made_by(maker):
    tokenizer, trainer = maker()
    trainer.show_progress = False
    tokenizer.train_from_iterator(SAMPLE, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


_MAKERS = [_byte_level, _split_by_a_pattern, _never_split, _unigram, _word_piece]
TOKENIZERS = {maker.__name__[1:]: _made_by(maker) for maker in _MAKERS}
"""By kind."""
