"""Who does which piece, for processes that share a store and die at any point."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest

from mbench.run.sharing import Alone, Shared
from mbench.storage.store import Store

WORKER = """
import os, sys, time
from pathlib import Path
from mbench.run.sharing import Shared
from mbench.storage.store import Store
folder, number, of, stop_at = Path(sys.argv[1]), *map(int, sys.argv[2:])
done = lambda piece: (folder / f"done {piece}").exists()
for count, piece in enumerate(Shared(Store(folder / "store"), number, of).mine(
    list(range(12)), lambda piece: f"piece {piece}", done
)):
    with (folder / "log").open("a") as log:
        log.write(f"{piece} {number}\\n")
    if count == stop_at:
        time.sleep(60)  # until it is killed
    time.sleep(0.02)
    (folder / f"done {piece}").touch()
"""


def start(folder, number, of, stop_at=-1):
    command = [sys.executable, "-c", WORKER, str(folder), str(number), str(of), str(stop_at)]
    return subprocess.Popen(command)


def begun(folder):
    return [line.split() for line in (folder / "log").read_text().splitlines()]


def test_alone_everything_that_is_not_done_is_mine_in_order():
    assert list(Alone().mine([3, 1, 2], str, lambda piece: piece == 1)) == [3, 2]


def test_every_piece_is_done_once_by_somebody(tmp_path):
    workers = [start(tmp_path, number, 3) for number in range(3)]
    assert [worker.wait(60) for worker in workers] == [0, 0, 0]
    pieces = Counter(piece for piece, _ in begun(tmp_path))
    assert pieces == {str(piece): 1 for piece in range(12)}
    # Each began at another place.
    firsts = {}
    for piece, worker in begun(tmp_path):
        firsts.setdefault(worker, piece)
    assert len(set(firsts.values())) == len(firsts)


@pytest.mark.parametrize("stop_at", [0, 2])
def test_what_a_killed_worker_had_is_done_by_another(tmp_path, stop_at):
    doomed = start(tmp_path, 0, 2, stop_at)
    until = time.monotonic() + 30
    while time.monotonic() < until and (
        not (tmp_path / "log").exists() or len(begun(tmp_path)) <= stop_at
    ):
        time.sleep(0.01)
    other = start(tmp_path, 1, 2)
    time.sleep(0.3)
    doomed.send_signal(signal.SIGKILL)
    doomed.wait()
    assert other.wait(60) == 0
    pieces = Counter(piece for piece, _ in begun(tmp_path))
    had = [piece for piece, worker in begun(tmp_path) if worker == "0"][-1]
    assert pieces == {str(piece): 1 + (str(piece) == had) for piece in range(12)}
    assert not list((tmp_path / "store" / "claims").iterdir())


def test_a_piece_that_fails_is_given_back_and_not_tried_again(tmp_path):
    store = Store(tmp_path)
    first = Shared(store, 0, 2).mine([1, 2], str, lambda piece: False)
    assert next(first) == 1
    second = Shared(store, 1, 2).mine([1, 2], str, lambda piece: False)
    assert next(second) == 2
    first.close()
    # Another may try it, who cannot know why it failed.
    assert list(second) == [1]
    assert list(Shared(store, 0, 1).mine([1, 2], str, lambda piece: False)) == [1, 2]


def test_a_claim_on_a_piece_lasts_while_it_is_worked_on(tmp_path):
    store = Store(tmp_path)
    mine = Shared(store, 0, 1, lease=0.3).mine(["a", "b"], str, lambda piece: False)
    next(mine)
    path = next(iter((tmp_path / "claims").iterdir()))
    path.write_text(path.read_text().replace('"machine": "', '"machine": "another '))
    time.sleep(0.7)
    assert store.claim("a") is None
    assert next(mine) == "b"
    assert os.listdir(tmp_path / "claims") != [path.name]
    mine.close()
    assert not os.listdir(tmp_path / "claims")
