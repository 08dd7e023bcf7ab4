"""How long a user waits: `mbench --help`, the quickstart from nothing, and the quickstart again.

python benchmarks/command_line.py [--help-only]
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SUITE = Path(__file__).parents[1] / "suites" / "quickstart.yaml"


def seconds(*command: str) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start


def main() -> None:
    mbench = str(Path(sys.executable).with_name("mbench"))
    pairs = [(seconds(mbench, "--help"), seconds(sys.executable, "-c", "pass")) for _ in range(21)]
    ratio = statistics.median(one / other for one, other in pairs)
    wall = statistics.median(one for one, _ in pairs)
    print(f"mbench --help: {1000 * wall:.0f} ms, {ratio:.2f} times a bare `python -c pass`")
    if "--help-only" in sys.argv:
        return
    with tempfile.TemporaryDirectory() as folder:
        run = [mbench, "run", str(SUITE), "--quiet", "--store", f"{folder}/store"]
        for name in ("from an empty store", "again"):
            print(f"quickstart {name}: {seconds(*run, '--output', f'{folder}/reports'):.1f} s")


if __name__ == "__main__":
    main()
