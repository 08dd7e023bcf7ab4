"""How long a user waits: `mbench --help`, `mbench check`, the quickstart from nothing and again.

python benchmarks/command_line.py [--help-only] [--other PROGRAM]

CPU seconds of all threads, with Python's bytecode kept as an installation does. `--other` names
the `mbench` of another version, which is measured in turns.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

SUITE = str(Path(__file__).parents[1] / "suites" / "quickstart.yaml")
KEPT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
ROUNDS = 9


def seconds(*command: str) -> float:
    """CPU time of a command and of all that it starts."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, capture_output=True, env=KEPT)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def compare(name: str, commands: dict[str, list[str]]) -> None:
    """Print the times of commands that are run in turns, and their ratio to the last one's."""
    for command in commands.values():
        seconds(*command)
    rounds = [[seconds(*command) for command in commands.values()] for _ in range(ROUNDS)]
    for who, times in zip(commands, zip(*rounds, strict=True), strict=True):
        low, middle, high = min(times), statistics.median(times), max(times)
        print(f"{name}, {who}: {middle:.3f} s ({low:.3f}-{high:.3f})")
    ratios = sorted(one[0] / one[-1] for one in rounds)
    middle = statistics.median(ratios)
    print(f"{name}, first to last: {middle:.2f} ({ratios[0]:.2f}-{ratios[-1]:.2f})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--help-only", action="store_true")
    parser.add_argument("--other", help="the `mbench` of another version")
    options = parser.parse_args()
    programs = {"this": str(Path(sys.executable).with_name("mbench"))}
    compare(
        "mbench --help",
        {"this": [programs["this"], "--help"], "a bare Python": [sys.executable, "-c", "pass"]},
    )
    if options.help_only:
        return
    if options.other:
        programs["other"] = options.other
    with tempfile.TemporaryDirectory() as folder:
        again, checks = {}, {}
        for who, program in programs.items():
            store = ["--store", f"{folder}/{who}"]
            checks[who] = [program, "check", SUITE, *store]
            again[who] = [program, "run", SUITE, "--quiet", *store]
            again[who] += ["--output", f"{folder}/reports-{who}"]
        compare("mbench check, once warm", checks)
        for who, command in again.items():
            print(f"quickstart from an empty store, {who}: {seconds(*command):.1f} s")
        compare("quickstart again", again)


if __name__ == "__main__":
    main()
