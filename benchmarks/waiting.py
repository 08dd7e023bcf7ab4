"""Forward passes of the embedded model beside a busy core: threads that wait passively or spin.

    python benchmarks/waiting.py

Prints seconds per pass for `OMP_WAIT_POLICY` unset and PASSIVE, idle and beside busy processes.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys

PASS = """
import time, torch
from mbench_plugins.demo.plugin import MODEL
from mbench.moe.load import load
model = load(str(MODEL), dtype="float32").model
ids = torch.randint(0, 1000, (8, 256))
def once():
    start = time.perf_counter()
    model(ids, use_cache=False)
    return time.perf_counter() - start
with torch.inference_mode():
    once()
    print(min(once() for _ in range(3)))
"""


def seconds(policy: str | None) -> float:
    environment = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"}
    if policy:
        environment["OMP_WAIT_POLICY"] = policy
    run = subprocess.run(
        [sys.executable, "-c", PASS], env=environment, capture_output=True, text=True, check=True
    )
    return float(run.stdout)


def main() -> None:
    cores = len(os.sched_getaffinity(0))
    for busy in (0, cores // 2):
        others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(busy)]
        try:
            times = {p: statistics.median(seconds(p) for _ in range(3)) for p in (None, "PASSIVE")}
        finally:
            for process in others:
                process.kill()
        ratio = times[None] / times["PASSIVE"]
        print(
            f"{busy} of {cores} cores busy: unset {times[None]:.3f} s, PASSIVE"
            f" {times['PASSIVE']:.3f} s, ratio {ratio:.2f}"
        )


if __name__ == "__main__":
    main()
