"""Tokens sent, padding and batches of multiple-choice tasks, and the time that they take.

    python benchmarks/batches.py TASK ... [--directory TASKS] [--timed ITEMS]

TASKS holds task files of lm-eval, and the working directory their data; without it, TASK is one of
the embedded tasks. By task and limit of tokens in a batch:

- sent / floor: tokens that go through the model, of those that would do if everything that requests
  begin with were computed once;
- padded / floor: the same with padding;
- batches, which a GPU works off one after another.

Each beside the plainer rule: a row holds the requests of one item, and the longest row that is left
begins a batch, which takes as many of the next as fit when padded to it.

With `--timed`, the embedded model scores a task's first ITEMS here and by lm-eval's own class, in
turns, on one thread, in CPU time; the median over rounds, and the range.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from in_turns import in_turns
from transformers import AutoModelForCausalLM, AutoTokenizer

import mbench_plugins.demo
from mbench.core.batch_limit import BatchLimit
from mbench.core.suite import LmEvalTask
from mbench.evaluate.arrangement import Arrangement
from mbench.evaluate.cuts import cuts
from mbench.evaluate.lm_eval import reference
from mbench.evaluate.lm_eval.prepared_task import prepare
from mbench.evaluate.lm_eval.quiet import quiet
from mbench.evaluate.meter import Meter

DEMO = Path(mbench_plugins.demo.__file__).parent
LIMITS = (4096, 8192, 16384, 65536, 131072)
ROUNDS = 5


def plain_rows(prepared):
    """Tokens of a row for each item: what all its requests begin with, then the rest of each."""
    items = [set() for _ in range(prepared.items)]
    for item, each in zip(prepared.requests.item_of, prepared.requests.requests, strict=True):
        items[item].add((tuple(each.tokens), tuple(each.targets)))
    rows = []
    for contents in items:
        texts = [tokens for tokens, _ in contents]
        low, high = min(texts), max(texts)
        pairs = enumerate(zip(low, high, strict=False))
        shared = next((at for at, (a, b) in pairs if a != b), min(len(low), len(high)))
        rows.append(shared + sum(len(tokens) - shared for tokens in texts))
    return sorted(rows, reverse=True)


def plain_batches(rows, limit):
    """Tokens with padding, and how many batches."""
    padded, count, start = 0, 0, 0
    while start < len(rows):
        part = rows[start : start + max(1, limit // rows[start])]
        padded += len(part) * part[0]
        count += 1
        start += len(part)
    return padded, count


def contents_of(prepared):
    """The distinct requests of a task: what is read, and how many of its last tokens are scored."""
    requests = prepared.requests.requests
    contents = {(tuple(each.tokens), tuple(each.targets)) for each in requests}
    return [(tokens, len(targets)) for tokens, targets in contents]


def ours(arrangement, contents, limit):
    """Tokens sent, tokens with padding, and how many batches, with those that are read before."""
    most_begun = [len(tokens) - scored for tokens, scored in contents]
    found = list(cuts(arrangement, range(len(contents)), limit, most_begun))
    sent, padded = sum(each.tokens for each in found), sum(each.padded for each in found)
    return sent, padded, len(found) + sum(each.first for each in found)


def counted(prepared):
    """Print a line for each limit."""
    contents = contents_of(prepared)
    arrangement = Arrangement([tokens for tokens, _ in contents])
    plain, floor = plain_rows(prepared), arrangement.floor
    print(
        f"{prepared.name}: {prepared.items} items, {len(contents)} requests, floor {floor} tokens"
    )
    for limit in LIMITS:
        sent, padded, batches = ours(arrangement, contents, limit)
        before, count = plain_batches(plain, limit)
        print(
            f"  {limit:6d}: sent {sent / floor:.3f} padded"
            f" {padded / floor:.3f} batches {batches}; plainer: sent {sum(plain) / floor:.3f}"
            f" padded {before / floor:.3f} batches {count}"
        )


def timed(prepared, model, tokenizer):
    """Print the ratio of CPU times; both must agree."""
    requests = prepared.requests

    def here():
        answers = requests.answer(model, BatchLimit(8192), Meter(requests.tokens, None))
        return [each[0] for each in answers]

    def by_lm_eval():
        with quiet():
            return reference.score_all(
                model, tokenizer, requests.requests, BatchLimit(8192), lambda share: None
            )

    # The first round compares packed and plain log-likelihoods, and is not counted.
    turns = in_turns({"here": here, "lm-eval": by_lm_eval}, ROUNDS)
    for found in turns.results:
        for (value, _), (expected, _) in zip(found["here"], found["lm-eval"], strict=True):
            assert abs(value - expected) < 1e-3 * max(1, abs(expected)), (value, expected)
    ratio = turns.ratio("lm-eval", "here")
    print(f"{prepared.name}: lm-eval / here {ratio}, {prepared.items} items")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tasks", nargs="+")
    parser.add_argument("--directory", type=Path, default=DEMO / "tasks")
    parser.add_argument("--timed", type=int, metavar="ITEMS")
    options = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(DEMO / "model")
    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(DEMO / "model", dtype=torch.float32).eval()
    for task in options.tasks:
        spec = LmEvalTask(limit=options.timed)
        prepared = prepare(task, spec, [options.directory], tokenizer, max_length=4096)
        if options.timed:
            timed(prepared, model, tokenizer)
        else:
            counted(prepared)


if __name__ == "__main__":
    main()
