"""Answers generated side by side beside lm-eval's own batches.

Usage: python benchmarks/generation.py [--prompts 200] [--limit 256] [--repeats 3] [--device cuda]

Both answer the same prompts of the embedded model, whose lengths and answers differ as those of
GSM8K do; a text that ends answers is chosen so that most end early. The named alternative is
lm-eval's `HFLM.generate_until` with the batch size that 8,192 tokens have room for, were every row
as long as the longest may get. CPU time of one thread, interleaved, with its quartiles.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import dataclass

import numpy as np
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from mbench.evaluate.decoding import Answer, generate
from mbench.evaluate.lm_eval.generator import Generator
from mbench.evaluate.lm_eval.quiet import quiet
from mbench.evaluate.row_passes import decodes_in_rows
from mbench.moe.load import load
from mbench_plugins.demo.plugin import MODEL
from mbench_plugins.demo.text import documents

BATCH_TOKENS = 8192
LM_EVAL, SIDE_BY_SIDE = "lm-eval", "side by side"
UNTIL = [" and", "\n"]


@dataclass
class Compared:
    """Both ways, by name."""

    passes: dict[str, int]
    seconds: dict[str, list[float]]
    texts: dict[str, list[str]]

    @property
    def fewer_passes(self) -> float:
        return self.passes[LM_EVAL] / self.passes[SIDE_BY_SIDE]

    @property
    def faster(self) -> float:
        pairs = zip(self.seconds[LM_EVAL], self.seconds[SIDE_BY_SIDE], strict=True)
        return statistics.median(one / other for one, other in pairs)

    @property
    def equal(self) -> int:
        return sum(a == b for a, b in zip(*self.texts.values(), strict=True))


def prompts(tokenizer, count: int, longest: int) -> list[str]:
    rng = np.random.default_rng(0)
    ids = tokenizer("\n".join(documents("wiki", "calibration")))["input_ids"]
    found = []
    for _ in range(count):
        length = int(np.clip(rng.lognormal(4.0, 0.6), 8, longest))
        start = int(rng.integers(0, len(ids) - length))
        found.append(tokenizer.decode(ids[start : start + length]))
    return found


def compared(count: int, limit: int, repeats: int, device: str) -> Compared:
    """Answer the same prompts both ways, in turns."""
    torch.set_num_threads(1)
    loaded = load(str(MODEL), dtype="float32")
    model, tokenizer = loaded.model.to(device), loaded.tokenizer
    # More than the model was trained on, which says nothing of the texts but costs as much.
    room = 256 + limit
    texts = prompts(tokenizer, count, room - limit)
    instances = [
        Instance("generate_until", {}, (text, {"until": UNTIL, "max_gen_toks": limit}), 0)
        for text in texts
    ]
    found = Compared({LM_EVAL: 0, SIDE_BY_SIDE: 0}, {LM_EVAL: [], SIDE_BY_SIDE: []}, {})

    def by_lm_eval() -> None:
        size = max(1, BATCH_TOKENS // room)
        wrapped = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=size, max_length=room)
        found.passes[LM_EVAL] = 0

        def count_pass(*_: object) -> None:
            found.passes[LM_EVAL] += 1

        handle = model.register_forward_hook(count_pass)
        found.texts[LM_EVAL] = wrapped.generate_until(instances, disable_tqdm=True)
        handle.remove()

    def side_by_side() -> None:
        wrapped = Generator(pretrained=model, tokenizer=tokenizer, batch_size=1, max_length=room)
        ending = wrapped.ending(UNTIL)
        asked = [Answer(wrapped.prompt(text, limit), limit, ending) for text in texts]
        assert decodes_in_rows(model, [answer.prompt for answer in asked], room)
        work = generate(model, asked, BATCH_TOKENS, lambda logits, rows: logits.argmax(-1))
        found.passes[SIDE_BY_SIDE] = work.steps
        pairs = zip(instances, asked, strict=True)
        found.texts[SIDE_BY_SIDE] = [wrapped.text_of(*pair)[0] for pair in pairs]

    with quiet():
        for _ in range(repeats):
            for name, way in ((LM_EVAL, by_lm_eval), (SIDE_BY_SIDE, side_by_side)):
                start = time.process_time()
                way()
                if device.startswith("cuda"):
                    torch.cuda.synchronize()
                found.seconds[name].append(time.process_time() - start)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--limit", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    found = compared(given.prompts, given.limit, given.repeats, given.device)
    for name, values in found.seconds.items():
        low, middle, high = np.percentile(values, (25, 50, 75))
        print(f"{name:13} {found.passes[name]:7} passes  {middle:6.1f} s [{low:.1f}, {high:.1f}]")
    print(f"passes {found.fewer_passes:.1f} times fewer, time {found.faster:.1f} times less")
    print(f"{found.equal} of {given.prompts} texts are equal")


if __name__ == "__main__":
    main()
