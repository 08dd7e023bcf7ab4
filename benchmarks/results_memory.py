"""Memory that the results of a run take: read, reported, and written.

Usage: PYTHONPATH=tests python benchmarks/results_memory.py [--items 4000] [--masks 46]

Results are stand-ins in the shape of suites/paper.yaml (two models, three budgets, eleven tasks);
`--masks` are those of both models together.
Each way is a process of its own, of which the peak (VmHWM) is printed, and by how much it exceeds
that of four items a task, for each row of `items.parquet`.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pyarrow.parquet

from helpers import synthetic
from mbench.report.publish import publish
from mbench.storage.results_folder import read, write

MODES = ("read", "report", "write")


def work(mode: str, folder: Path) -> None:
    """What one process does with the results in a folder."""
    results = read(folder)
    if mode == "report":
        publish(results, folder / "report", files=None)
    if mode == "write":
        write(results, folder / "again")


def peak(mode: str, folder: Path) -> int:
    """Bytes that a process of its own has held at most."""
    command = [sys.executable, __file__, "--work", mode, str(folder)]
    found = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return int(found.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=4000)
    parser.add_argument("--masks", type=int)
    parser.add_argument("--work", nargs=2, metavar=("MODE", "FOLDER"))
    options = parser.parse_args()
    if options.work:
        work(options.work[0], Path(options.work[1]))
        found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
        assert found is not None
        print(int(found[1]) * 1024)
        return
    with tempfile.TemporaryDirectory() as name:
        few, many = Path(name) / "few", Path(name) / "many"
        for folder, items in ((few, 4), (many, options.items)):
            masks = None if options.masks is None else options.masks // 2
            write(synthetic.paper_sized(items=items, settings_each=masks), folder)
            synthetic.paper_sized.cache_clear()
        rows = pyarrow.parquet.read_metadata(many / "items.parquet").num_rows
        print(f"{options.items} items a task, {rows} rows; peaks of a process:")
        for mode in MODES:
            held, least = peak(mode, many), peak(mode, few)
            above = (held - least) / rows
            print(f"{mode:7} {held / 1e6:7.0f} MB, {above:5.0f} bytes a row above few items")


if __name__ == "__main__":
    main()
