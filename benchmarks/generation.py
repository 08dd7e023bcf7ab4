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

import numpy as np
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from mbench.core.evaluation import GenerationWork
from mbench.evaluate.decoding import Answer, generate
from mbench.evaluate.lm_eval.generator import Generator
from mbench.evaluate.lm_eval.quiet import quiet
from mbench.evaluate.row_passes import decodes_in_rows
from mbench.moe.load import load
from mbench_plugins.demo.plugin import MODEL
from mbench_plugins.demo.text import documents

BATCH_TOKENS = 8192
UNTIL = [" and", "\n"]


def prompts(tokenizer, count: int, longest: int) -> list[str]:
    rng = np.random.default_rng(0)
    ids = tokenizer("\n".join(documents("wiki", "calibration")))["input_ids"]
    found = []
    for _ in range(count):
        length = int(np.clip(rng.lognormal(4.0, 0.6), 8, longest))
        start = int(rng.integers(0, len(ids) - length))
        found.append(tokenizer.decode(ids[start : start + length]))
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--limit", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    torch.set_num_threads(1)
    loaded = load(str(MODEL), dtype="float32")
    model, tokenizer = loaded.model.to(given.device), loaded.tokenizer
    # More than the model was trained on, which says nothing of the texts but costs as much.
    room = 256 + given.limit
    texts = prompts(tokenizer, given.prompts, room - given.limit)
    instances = [
        Instance("generate_until", {}, (text, {"until": UNTIL, "max_gen_toks": given.limit}), 0)
        for text in texts
    ]
    steps = {"lm-eval": 0, "side by side": 0}
    made: dict[str, list[str]] = {}

    def by_lm_eval() -> None:
        size = max(1, BATCH_TOKENS // room)
        wrapped = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=size, max_length=room)
        steps["lm-eval"] = 0

        def count(*_: object) -> None:
            steps["lm-eval"] += 1

        handle = model.register_forward_hook(count)
        made["lm-eval"] = wrapped.generate_until(instances, disable_tqdm=True)
        handle.remove()

    def side_by_side() -> None:
        wrapped = Generator(pretrained=model, tokenizer=tokenizer, batch_size=1, max_length=room)
        ending = wrapped.ending(UNTIL)
        asked = [Answer(wrapped.prompt(text, given.limit), given.limit, ending) for text in texts]
        assert decodes_in_rows(model, [answer.prompt for answer in asked], room)
        work = generate(
            model,
            asked,
            BATCH_TOKENS,
            lambda logits, rows: logits.argmax(-1),
            work=GenerationWork(),
        )
        steps["side by side"] = work.steps
        pairs = zip(instances, asked, strict=True)
        made["side by side"] = [wrapped.text_of(*pair)[0] for pair in pairs]

    ways = {"lm-eval": by_lm_eval, "side by side": side_by_side}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    with quiet():
        for _ in range(given.repeats):
            for name, way in ways.items():
                start = time.process_time()
                way()
                if given.device.startswith("cuda"):
                    torch.cuda.synchronize()
                seconds[name].append(time.process_time() - start)
    same = sum(a == b for a, b in zip(*made.values(), strict=True))
    lengths = [len(tokenizer(text)["input_ids"]) for text in made["side by side"]]
    print(f"{len(texts)} prompts, answers of {np.mean(lengths):.0f} tokens in the mean")
    for name in ways:
        low, middle, high = np.percentile(seconds[name], (25, 50, 75))
        print(f"{name:13} {steps[name]:7} passes  {middle:6.1f} s [{low:.1f}, {high:.1f}]")
    ratio = statistics.median(
        one / other for one, other in zip(seconds["lm-eval"], seconds["side by side"], strict=True)
    )
    fewer = steps["lm-eval"] / steps["side by side"]
    print(f"passes {fewer:.1f} times fewer, time {ratio:.1f} times less")
    print(f"{same} of {len(texts)} texts are equal")


if __name__ == "__main__":
    main()
