"""Processes that race for claims of one store, and a check that no two ever had the same."""

from __future__ import annotations

import collections
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from helpers.held import LONG

RACER = """
import os, sys, time
from pathlib import Path
from mbench.storage.store import Store
store, log = Store(sys.argv[1]), Path(sys.argv[2])
def tell(word, piece):
    with log.open("a") as file:  # a line at once, whole
        file.write(f"{word} {piece} {os.getpid()}\\n")
for round in range(int(sys.argv[3])):
    for piece in range(3):
        claim = store.claim(f"piece {piece}")
        if claim is not None:
            with claim.kept():
                tell("begin", piece)
                time.sleep(0.001)
                tell("end", piece)
"""


def racers(store: str, log: Path, rounds: int, count: int) -> list[subprocess.Popen]:
    """Start so many processes that claim, hold and give back three pieces again and again."""
    command = [sys.executable, "-c", RACER, store, str(log), str(rounds)]
    return [subprocess.Popen(command) for _ in range(count)]


def kill_in_work(racer: subprocess.Popen, log: Path) -> None:
    """Once it has had some claims."""
    until = time.monotonic() + LONG
    while not (log.exists() and log.stat().st_size > 200):
        assert time.monotonic() < until
        assert racer.poll() is None
        time.sleep(0.01)
    racer.send_signal(signal.SIGKILL)
    racer.wait()


def owners(log: Path) -> tuple[dict[str, str], Counter[str]]:
    """Who has which piece at the end, and how often each had one; fails where two did at once."""
    held: dict[str, str] = {}
    ended: Counter[str] = collections.Counter()
    for line in log.read_text().splitlines():
        word, piece, process = line.split()
        if word == "begin":
            assert piece not in held, (piece, held[piece], process)
            held[piece] = process
        else:
            assert held.pop(piece) == process
            ended[process] += 1
    return held, ended
