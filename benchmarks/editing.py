"""How long an author waits: a scorer is edited, and the leaderboard of first_look is there again.

python benchmarks/editing.py

The rest is in the store, as it is from the second run on. Seconds of the clock say little on a busy
machine; those of the processors, of all processes together, are what the wait is on idle ones at
most. Exit status 1 if they are more than LIMIT.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LIMIT = 15.0
"""Seconds."""

PLUGIN = """\
import mbench


class Edited(mbench.Scorer):
    name = "edited"
    needs = (mbench.RoutingSums(),)

    def score(self, profile):
        return profile.sums(mbench.RoutingSums())["{sums}"]


@mbench.hookimpl
def mbench_components():
    return [Edited]


@mbench.hookimpl
def mbench_methods():
    return [mbench.Method("edited", scorer="edited", corpora=1)]
"""


def run(folder: Path, sums: str) -> tuple[float, float]:
    """Seconds of the clock and of the processors, for a scorer that ranks by these sums."""
    plugin = folder / "edited.py"
    plugin.write_text(PLUGIN.format(sums=sums))
    mbench = str(Path(sys.executable).with_name("mbench"))
    methods = [f"--method={name}" for name in ("random", "reap", "expert-sparsity", "edited")]
    places = ["--store", str(folder / "store"), "--output", str(folder / "reports")]
    command = [mbench, "run", "first_look", "--quiet", "--plugin", str(plugin), *methods, *places]
    start, before = time.perf_counter(), os.times()
    subprocess.run(command, check=True, capture_output=True)
    after = os.times()
    processors = after.children_user + after.children_system
    processors -= before.children_user + before.children_system
    return time.perf_counter() - start, processors


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        for what, sums in (
            ("from an empty store", "count"),
            ("edited", "gate"),
            ("edited again", "norm"),
        ):
            clock, processors = run(Path(name), sums)
            print(f"{what}: {clock:.1f} s, {processors:.1f} s of processors", flush=True)
    sys.exit(processors > LIMIT)


if __name__ == "__main__":
    main()
