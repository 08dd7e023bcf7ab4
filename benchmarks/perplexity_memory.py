"""Memory that a perplexity takes: its text of 100 MB, and its passes beside a plain one.

Usage: python benchmarks/perplexity_memory.py [--megabytes 100] [--vocabulary 151936] [--only batch]

Each way is a forked process of its own, whose peak is told by the kernel when it has ended; figures
are what it exceeds that of one that does nothing by.

- Text: words drawn at random, as one document or as one a line of about 2 kB, in windows of 2,048
  tokens; all are asked for, or eight. Beside them, the tokenizer's own call on a fifth of the text,
  since all of it may take more memory than there is.
- Batch: a random Qwen2-MoE with a large vocabulary reads four windows of 2,048 tokens at once.
  `body` makes no logits; `plain` is the model's own forward and the loss of its logits; then
  perplexity; and perplexity by the whole model, as for one whose logits are more than its head, a
  window at a time, beside `plain one` of one window.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from random_model import random_model
from transformers import AutoTokenizer

import mbench_plugins.demo
from mbench.core.suite import PerplexityTask
from mbench.core.suite_inputs import TextSource
from mbench.evaluate import perplexity

# Forked processes are told by the library not to use threads, with a warning.
os.environ["TOKENIZERS_PARALLELISM"] = "false"

WINDOW, WINDOWS = 2048, 4
MEGABYTE = 2**20
TOKENIZER = Path(mbench_plugins.demo.__file__).parent / "model"
TEXTS = {
    "all, one document": {"protocol": "gptq"},
    "8, one document": {"protocol": "gptq", "max_windows": 8},
    "all, many joined": {"protocol": "gptq"},
    "all, each document": {"protocol": "document"},
    "8, each document": {"protocol": "document", "max_windows": 8},
}
BATCHES = ("body", "plain", "perplexity", "plain one", "whole model")


def task(**settings) -> PerplexityTask:
    return PerplexityTask(source=TextSource(plugin="none"), window=WINDOW, **settings)


def lines(megabytes: int):
    """Lines of about 2 kB, which are together so long."""
    random = np.random.default_rng(0)
    letters = list("etaoinshrdlu")
    words = ["".join(random.choice(letters, random.integers(2, 9))) for _ in range(5000)]
    left = megabytes * MEGABYTE
    while left > 0:
        line = " ".join(words[at] for at in random.integers(0, len(words), 340)) + "\n"
        left -= len(line)
        yield line


def tokenised(tokenizer, way: str, megabytes: int) -> None:
    text = lines(megabytes)
    documents = [text] if "one" in way else ([line] for line in text)
    found = perplexity.prepare("text", task(**TEXTS[way]), documents, tokenizer, None)
    print(f"{way}: {found.tokens} tokens read in {found.items} rows", end=", ", flush=True)


def plainly(tokenizer, megabytes: int) -> None:
    found = tokenizer("".join(lines(megabytes)), verbose=False)["input_ids"]
    print(f"plain, {megabytes} MB: {len(found)} tokens", end=", ", flush=True)


@torch.no_grad()
def computed(model, prepared: perplexity.PreparedText, way: str) -> None:
    ids = torch.zeros((prepared.items, WINDOW), dtype=torch.int64)
    print(way, end=": ", flush=True)
    if way == "body":
        model.base_model(ids, use_cache=False)
    elif way.startswith("plain"):
        model(ids, labels=ids, use_cache=False)
    else:
        if way == "whole model":
            perplexity.split = lambda *_: None
        prepared.evaluate(model, batch_tokens=WINDOW * WINDOWS)


def peak(work: Callable[[], object]) -> tuple[int, float]:
    """Bytes that a process has held at most while it did something, and the CPU seconds."""
    process = os.fork()
    if not process:
        work()
        os._exit(0)
    _, status, used = os.wait4(process, 0)
    assert status == 0
    return used.ru_maxrss * 1024, used.ru_utime + used.ru_stime


def told(work: Callable[[], object]) -> None:
    least, _ = peak(lambda: None)
    held, seconds = peak(work)
    print(f"{(held - least) / 1e6:.0f} MB, {seconds:.1f} CPU s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--vocabulary", type=int, default=151_936)
    parser.add_argument("--only", choices=["text", "batch"])
    options = parser.parse_args()
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER)
    tokenizer("text")
    if options.only != "batch":
        print(f"a text of {options.megabytes} MB:")
        for way in TEXTS:
            told(partial(tokenised, tokenizer, way, options.megabytes))
        told(partial(plainly, tokenizer, max(1, options.megabytes // 5)))
    if options.only != "text":
        model = random_model(
            torch.float32,
            "cpu",
            vocab_size=options.vocabulary,
            num_hidden_layers=2,
            num_experts=8,
            hidden_size=256,
            moe_intermediate_size=128,
            shared_expert_intermediate_size=128,
            intermediate_size=128,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=WINDOW,
        )
        # What a first pass allocates for good is no batch's.
        model(torch.zeros((1, 16), dtype=torch.int64))
        print(f"a batch of {WINDOW * WINDOWS} tokens, {options.vocabulary} token ids:")
        for way in BATCHES:
            count = 1 if way in ("plain one", "whole model") else WINDOWS
            spec = task(protocol="gptq", max_windows=count, documents="whole")
            prepared = perplexity.prepare("text", spec, [lines(1)], tokenizer, None)
            told(partial(computed, model, prepared, way))


if __name__ == "__main__":
    main()
