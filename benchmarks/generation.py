"""Answers generated side by side beside lm-eval's own batches.

Usage: python benchmarks/generation.py [--prompts 200] [--limit 256] [--examples 0] [--repeats 3]
           [--device cuda]

Both answer the same prompts of the embedded model, whose lengths and answers differ as those of
GSM8K do; a text that ends answers is chosen so that most end early. The named alternative is
lm-eval's `HFLM.generate_until` with the batch size that 8,192 tokens have room for, were every row
as long as the longest may get. With `--examples 5`, all prompts begin with as many of 150 tokens,
as those of GSM8K do; then the same is also done with every prompt read as a whole. CPU time of one
thread, in turns, with the range of the ratios.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from in_turns import Ratio, Turns, in_turns
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from mbench.core.batch_limit import BatchLimit
from mbench.evaluate import shared_prompts
from mbench.evaluate.answers import Answer
from mbench.evaluate.decoding import generate
from mbench.evaluate.lm_eval.generator import Generator
from mbench.evaluate.lm_eval.quiet import quiet
from mbench.evaluate.row_passes import decodes_in_rows
from mbench.moe.load import load
from mbench_plugins.demo.plugin import MODEL
from mbench_plugins.demo.text import documents

BATCH_TOKENS = 8192
LM_EVAL, WHOLE, SIDE_BY_SIDE = "lm-eval", "whole prompts", "side by side"
EXAMPLE = 150
"""Tokens of an example."""
UNTIL = [" and", "\n"]


@dataclass
class Compared:
    """All ways, by name."""

    passes: dict[str, int] = field(default_factory=dict)
    """For one token of each row."""
    read: dict[str, int] = field(default_factory=dict)
    """Tokens of prompts, without padding."""
    texts: dict[str, list[str]] = field(default_factory=dict)
    turns: Turns[None] = field(default_factory=lambda: Turns({}, ()))

    @property
    def fewer_passes(self) -> float:
        return self.passes[LM_EVAL] / self.passes[SIDE_BY_SIDE]

    @property
    def faster(self) -> Ratio:
        return self.turns.ratio(LM_EVAL, SIDE_BY_SIDE)

    @property
    def equal(self) -> int:
        return sum(len(set(texts)) == 1 for texts in zip(*self.texts.values(), strict=True))


def prompts(tokenizer, count: int, longest: int, examples: int) -> list[str]:
    rng = np.random.default_rng(0)
    ids = tokenizer("\n".join(documents("wiki", "calibration")))["input_ids"]
    shared = tokenizer.decode(ids[: examples * EXAMPLE])
    found = []
    for _ in range(count):
        length = int(np.clip(rng.lognormal(4.0, 0.6), 8, longest))
        start = int(rng.integers(0, len(ids) - length))
        found.append(shared + tokenizer.decode(ids[start : start + length]))
    return found


def compared(count: int, limit: int, repeats: int, device: str, examples: int = 0) -> Compared:
    """Answer the same prompts in all ways, in turns."""
    torch.set_num_threads(1)
    loaded = load(str(MODEL), dtype="float32")
    model, tokenizer = loaded.model.to(device), loaded.tokenizer
    # More than the model was trained on, which says nothing of the texts but costs as much.
    room = 256 + limit + 2 * examples * EXAMPLE
    texts = prompts(tokenizer, count, 256, examples)
    instances = [
        Instance("generate_until", {}, (text, {"until": UNTIL, "max_gen_toks": limit}), 0)
        for text in texts
    ]
    found = Compared()

    def by_lm_eval() -> None:
        size = max(1, BATCH_TOKENS // room)
        wrapped = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=size, max_length=room)
        found.passes[LM_EVAL] = 0
        found.read[LM_EVAL] = sum(len(wrapped.tok_encode(text)) for text in texts)

        def count_pass(*_: object) -> None:
            found.passes[LM_EVAL] += 1

        handle = model.register_forward_hook(count_pass)
        found.texts[LM_EVAL] = wrapped.generate_until(instances, disable_tqdm=True)
        handle.remove()

    def side_by_side(name: str, cost_of_pass: int) -> None:
        shared_prompts.PASS = cost_of_pass
        wrapped = Generator(pretrained=model, tokenizer=tokenizer, batch_size=1, max_length=room)
        ending = wrapped.ending(UNTIL)
        asked = [Answer(wrapped.prompt(text, limit), limit, ending) for text in texts]
        assert decodes_in_rows(model, [answer.prompt for answer in asked], room)
        choose = lambda logits, rows: logits.argmax(-1)  # noqa: E731
        work = generate(model, asked, BatchLimit(BATCH_TOKENS), choose)
        found.passes[name], found.read[name] = work.steps, work.prompt_tokens
        pairs = zip(instances, asked, strict=True)
        found.texts[name] = [wrapped.text_of(*pair)[0] for pair in pairs]

    ways = {LM_EVAL: by_lm_eval}
    ways[SIDE_BY_SIDE] = partial(side_by_side, SIDE_BY_SIDE, shared_prompts.PASS)
    if examples:
        ways[WHOLE] = partial(side_by_side, WHOLE, 10**12)
    with quiet():
        found.turns = in_turns(ways, repeats, device, warm=False)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--limit", type=int, default=256)
    parser.add_argument("--examples", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    found = compared(given.prompts, given.limit, given.repeats, given.device, given.examples)
    for name in found.turns.seconds:
        print(
            f"{name:13} {found.passes[name]:7} passes  {found.read[name]:8} tokens read"
            f"  {found.turns.median(name):6.1f} s"
        )
    print(f"passes {found.fewer_passes:.1f} times fewer, time {found.faster} times less")
    if given.examples:
        print(f"whole prompts take {found.turns.ratio(WHOLE, SIDE_BY_SIDE)} times as long")
    print(f"{found.equal} of {given.prompts} texts are equal")


if __name__ == "__main__":
    main()
