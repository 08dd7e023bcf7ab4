"""What a run says that it will take, beside what it takes.

Usage: python benchmarks/forecast.py [--seeds 3] [--share 0.01] [--longest 45]

The embedded model with `seeds` and three more masks at each of three budgets, on a perplexity, two
choice tasks, and a generating one whose answers end early or late. All clocks of the run are set to
CPU time of one thread, so that what else the machine does is no error of the forecast. `share` is
what measuring may cost of the run's time: with 0.01, only runs of more than ten minutes measure at
their beginning.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
time.monotonic = time.perf_counter = time.process_time

import numpy as np  # noqa: E402
import torch  # noqa: E402

import mbench  # noqa: E402
from mbench.moe.load import load  # noqa: E402
from mbench.run import forecast  # noqa: E402
from mbench_plugins.demo.plugin import MODEL  # noqa: E402
from mbench_plugins.demo.text import documents  # noqa: E402

TASK = """\
task: continued
dataset_path: json
dataset_kwargs: {data_files: {test: continued.jsonl}}
output_type: generate_until
test_split: test
doc_to_text: "{{text}}"
doc_to_target: ""
generation_kwargs: {until: [" and", "\\n"], do_sample: false, max_gen_toks: 128}
metric_list: [{metric: exact_match}]
"""


def suite(folder: Path, seeds: int) -> dict[str, object]:
    """The suite, with its task's files in `folder`."""
    tokenizer = load(str(MODEL), dtype="float32").tokenizer
    ids = tokenizer("\n".join(documents("wiki", "calibration")))["input_ids"]
    rng = np.random.default_rng(0)
    rows = []
    for length in np.clip(rng.lognormal(4.0, 0.6, 150), 8, 120).astype(int):
        start = int(rng.integers(0, len(ids) - length))
        rows.append(json.dumps({"text": tokenizer.decode(ids[start : start + length]).strip()}))
    (folder / "continued.jsonl").write_text("\n".join(rows))
    (folder / "continued.yaml").write_text(TASK)
    corpora = {
        name: {"source": {"plugin": name, "split": "calibration"}, "sequences": 64, "length": 256}
        for name in ("wiki", "bible")
    }
    return {
        "name": "forecast",
        "models": {"demo": {"plugin": "demo", "dtype": "float32"}},
        "retain": [0.25, 0.5, 0.75],
        "seeds": list(range(seeds)),
        "corpora": corpora,
        "calibration": ["wiki", "bible"],
        "methods": {
            "random": {},
            "reap": {"corpora": ["wiki"]},
            "mean": {},
            "expert-sparsity": {"corpora": ["bible"]},
        },
        "perplexity": {
            "ppl-wiki": {
                "source": {"plugin": "wiki", "split": "evaluation"},
                "protocol": "document",
                "window": 128,
                "windows_per_document": 1,
                "max_windows": 100,
            }
        },
        "tasks": {
            "cloze_wiki": {"metric": "acc", "limit": 400},
            "cloze_code": {"metric": "acc", "limit": 400},
            "continued": {"metric": "exact_match", "directory": str(folder)},
        },
        "average": {"name": "choices", "tasks": ["cloze_wiki", "cloze_code"]},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--share", type=float, default=forecast.SHARE)
    parser.add_argument("--longest", type=float, default=forecast.LONGEST)
    given = parser.parse_args()
    forecast.SHARE, forecast.LONGEST = given.share, given.longest
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.chdir(folder)
        run = mbench.run(
            suite(folder, given.seeds), store=folder / "store", output=folder / "report"
        )
        for made in run.provenance.runs[-1].cost.forecasts:
            assert made.took is not None
            off = f"{made.took / made.seconds - 1:+.0%}"
            print(f"after {made.after:.0f} s, {made.evaluations} evaluations: ", end="")
            print(f"{made.seconds:.0f} s; took {made.took:.0f} s, {off}")


if __name__ == "__main__":
    main()
