"""Perplexity by the words of its protocols, token by token; small models and texts for it."""

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2MoeConfig,
    Qwen2MoeForCausalLM,
)

from mbench.core.suite import PerplexityTask
from mbench.core.suite_inputs import TextSource

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
