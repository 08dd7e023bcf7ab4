"""Where the repository is, and the sample of public data beside it."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
PUBLISHED = ROOT / "reports" / "published"
DATA = ROOT.parent / "shared" / "data"
TASKS = {
    name: DATA / "tasks" / f"{name}.yaml"
    for name in (
        *("arc_challenge", "arc_easy", "hellaswag", "piqa", "winogrande", "boolq"),
        *("mmlu", "gsm8k", "math500"),
    )
}
TEXTS = {
    "wikitext2": DATA / "wikitext2_raw_train_1MB.txt",
    "c4": DATA / "c4_en_calib.jsonl",
    "evol-codealpaca": DATA / "c4_en_eval.jsonl",
    "ppl-wikitext2": DATA / "wikitext2_raw_test.txt",
    "ppl-c4": DATA / "c4_en_eval.jsonl",
}
