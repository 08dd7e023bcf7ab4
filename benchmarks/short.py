"""The short version of the benchmarks: fails where a ratio is far worse than what is claimed.

python benchmarks/short.py

Bounds are wide, since machines are busy: they catch a loop that came back, not a few per cent.
The claims, and how they were measured, are in benchmarks/README.md.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import batches
import generation
import numpy as np
import profiling
import sample_memory
import torch
from in_turns import in_turns
from transformers import AutoTokenizer

from mbench.core.suite import LmEvalTask
from mbench.evaluate.arrangement import Arrangement
from mbench.evaluate.lm_eval.prepared_task import prepare


@dataclass(frozen=True)
class Ratio:
    """One figure and the worst that is let pass."""

    name: str
    value: float
    bound: float
    more_is_better: bool = False

    @property
    def fails(self) -> bool:
        return self.value < self.bound if self.more_is_better else self.value > self.bound

    def __str__(self) -> str:
        least = "at least" if self.more_is_better else "at most"
        verdict = "FAILS" if self.fails else "holds"
        return f"{verdict}  {self.name}: {self.value:.2f}, {least} {self.bound:g}"


def of_generation() -> list[Ratio]:
    found = generation.compared(count=60, limit=96, repeats=1, device="cpu")
    return [
        Ratio("generation, passes of lm-eval / ours", found.fewer_passes, 2, more_is_better=True),
        Ratio("generation, time of lm-eval / ours", found.faster.median, 1.2, more_is_better=True),
        Ratio("generation, equal texts", found.equal / 60, 1, more_is_better=True),
    ]


def of_batches() -> list[Ratio]:
    tokenizer = AutoTokenizer.from_pretrained(batches.DEMO / "model")
    tasks = batches.DEMO / "tasks"
    prepared = prepare("cloze_wiki", LmEvalTask(), [tasks], tokenizer, max_length=4096)
    contents = batches.contents_of(prepared)
    arrangement = Arrangement([tokens for tokens, _ in contents])
    found = []
    for limit in (4096, 131072):
        _, padded, _ = batches.ours(arrangement, contents, limit)
        name = f"tokens with padding / floor, {limit:,} a batch"
        found.append(Ratio(name, padded / arrangement.floor, 1.25))
    return found


def of_profiling() -> list[Ratio]:
    torch.set_num_threads(1)
    model = profiling.build("qwen2_moe", torch.float32, "cpu")
    ids = np.random.default_rng(0).integers(0, profiling.VOCABULARY, (1, 512))
    turns = in_turns(profiling.runs_of(model, ids, 1, every_expert=False), rounds=3)
    plain = turns.fastest(f"plain, {name}" for name in profiling.STOCK)
    sums, sample = (
        turns.ratio(name, plain).of_least
        for name in ("routing sums", "with ExpertSparsity's sample")
    )
    return [
        Ratio("profiling, routing sums / plain", sums, 1.5),
        Ratio("profiling, with a sample / plain", sample, 2),
    ]


def of_samples() -> list[Ratio]:
    layers = 4
    with tempfile.TemporaryDirectory() as folder:
        stores = {mode: Path(folder) / mode for mode in ("sums", "sample")}
        peaks = {mode: sample_memory.peak(mode, store, layers) for mode, store in stores.items()}
        size = sum(file.stat().st_size for file in stores["sample"].rglob("layer-*"))
    above = (peaks["sample"] - peaks["sums"]) / size
    return [Ratio("memory of a sample while it is collected / its size", above, 0.75)]


PARTS: tuple[Callable[[], list[Ratio]], ...] = (of_generation, of_batches, of_profiling, of_samples)


def main() -> int:
    failed = False
    for part in PARTS:
        for ratio in part():
            print(ratio, flush=True)
            failed |= ratio.fails
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
