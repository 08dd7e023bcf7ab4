"""Time of several masks on one lm-eval task: this project's evaluation against lm-eval's own.

Both run in one process, in turns, on the embedded model and the same items, and must agree. CPU
time is compared, which other work on the machine affects less than elapsed time. What is left
after the model's body and head is the overhead of the evaluation itself.

    python benchmarks/evaluation.py --items 400 --masks 3
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import lm_eval
import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers import AutoModelForCausalLM, AutoTokenizer

import mbench_plugins.demo
from mbench.core.suite import LmEvalTask
from mbench.evaluate.lm_eval.prepared_task import prepare
from mbench.evaluate.lm_eval.quiet import quiet

DEMO = Path(mbench_plugins.demo.__file__).parent


class Clock:
    """CPU seconds spent inside some modules."""

    def __init__(self, *modules):
        self.seconds = 0.0
        for module in modules:
            module.register_forward_pre_hook(self.start)
            module.register_forward_hook(self.stop)

    def start(self, *_):
        self.begun = time.process_time()

    def stop(self, *_):
        self.seconds += time.process_time() - self.begun


def timed(function, *arguments, **options):
    begun = time.process_time()
    result = function(*arguments, **options)
    return result, time.process_time() - begun


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", default="cloze_wiki")
    parser.add_argument("--directory", type=Path, default=DEMO / "tasks")
    parser.add_argument("--items", type=int, default=400)
    parser.add_argument("--masks", type=int, default=3)
    parser.add_argument("--batch-tokens", type=int, default=2048)
    options = parser.parse_args()

    tokenizer = AutoTokenizer.from_pretrained(DEMO / "model")
    model = AutoModelForCausalLM.from_pretrained(DEMO / "model", dtype=torch.float32).eval()
    length = model.config.max_position_embeddings
    clock = Clock(model.base_model, model.get_output_embeddings())
    prepared, preparing = timed(
        prepare,
        options.task,
        LmEvalTask(limit=options.items),
        [options.directory],
        tokenizer,
        max_length=length,
    )
    with quiet():
        manager = TaskManager(include_path=[str(options.directory)], include_defaults=False)
        loaded = manager.load(options.task)

    def stock():
        with quiet():
            wrapped = HFLM(
                pretrained=model,
                tokenizer=tokenizer,
                batch_size=max(1, options.batch_tokens // prepared.longest),
                max_length=length,
                softmax_dtype="float32",
            )
            return lm_eval.evaluate(wrapped, loaded, limit=options.items, bootstrap_iters=0)

    print(f"preparing: {preparing:.2f} s, once; {prepared.items} items, {prepared.tokens} tokens")
    ratios, rests = [], []
    routers = [layer.mlp.gate.weight for layer in model.model.layers]
    for number in range(options.masks + 1):
        with torch.no_grad():  # as good as a mask: another state of the same model
            for router in routers:
                router.add_(0.01 * torch.randn_like(router))
        theirs, slow = timed(stock)
        clock.seconds = 0.0
        ours, fast = timed(prepared.evaluate, model, batch_tokens=options.batch_tokens)
        rest = fast - clock.seconds
        for metric in ours.metrics:
            expected = theirs["results"][options.task][f"{metric.name},none"]
            assert abs(metric.value - expected) < 1e-12, (metric, expected)
        if number == 0:
            continue  # the first pays for the comparison of packed and plain
        ratios.append(slow / fast)
        rests.append(rest)
        print(
            f"mask {number}: lm-eval {slow:.2f} s, here {fast:.2f} s, of it overhead {rest:.2f} s"
        )
    per_item = sorted(rests)[len(rests) // 2] / prepared.items
    print(f"lm-eval / here: {sorted(ratios)[len(ratios) // 2]:.2f} (median), {prepared.scoring}")
    print(f"overhead of 1,200 items: {1200 * per_item:.2f} s per mask")


if __name__ == "__main__":
    main()
