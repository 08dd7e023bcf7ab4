"""Who does which piece, for processes that share a store and die at any point."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter

import pandas as pd
import pytest

from helpers.held import LONG
from helpers.tiny_suite import SUITE, go, plan_of, results_of
from mbench.core.results import long_form
from mbench.run.progress import Progress
from mbench.run.runner import Runner
from mbench.run.sharing import Alone, ClaimLost, Shared
from mbench.storage.claims import TOUCHES
from mbench.storage.store import Store

WORKER = """
import os, sys, time
from pathlib import Path
from mbench.run.sharing import Shared
from mbench.storage.store import Store
folder, number, of, stop_at, lease = Path(sys.argv[1]), *map(int, sys.argv[2:])
done = lambda piece: (folder / f"done {piece}").exists()
counts = iter(range(100))
def do(piece):
    with (folder / "log").open("a") as log:
        log.write(f"{piece} {number}\\n")
    if next(counts) == stop_at:
        for _ in range(6000):  # until it is killed, or finds out that it was taken for dead
            time.sleep(0.1)
            shared.check()
    time.sleep(0.02)
    (folder / f"done {piece}").touch()
tell = (folder / f"told {number}").write_text
shared = Shared(Store(folder / "store"), number, of, lease=lease, tell=tell)
shared.each(list(range(12)), lambda piece: f"piece {piece}", done, do)
"""


def start(folder, number, of, stop_at=-1, lease=60):
    words = (folder, number, of, stop_at, lease)
    return subprocess.Popen([sys.executable, "-c", WORKER, *map(str, words)])


def wait_until(condition):
    until = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def begun(folder):
    log = folder / "log"
    return [line.split() for line in log.read_text().splitlines()] if log.exists() else []


def test_alone_everything_that_is_not_done_is_mine_in_order():
    did = []
    Alone().each([3, 1, 2], str, lambda piece: piece == 1, did.append)
    assert did == [3, 2]


def test_every_piece_is_done_once_by_somebody(tmp_path):
    workers = [start(tmp_path, number, 3) for number in range(3)]
    assert [worker.wait(LONG) for worker in workers] == [0, 0, 0]
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
    wait_until(lambda: len(begun(tmp_path)) > stop_at)
    other = start(tmp_path, 1, 2)
    doomed.send_signal(signal.SIGKILL)
    doomed.wait()
    assert other.wait(LONG) == 0
    pieces = Counter(piece for piece, _ in begun(tmp_path))
    had = [piece for piece, worker in begun(tmp_path) if worker == "0"][-1]
    assert pieces == {str(piece): 1 + (str(piece) == had) for piece in range(12)}
    assert not list((tmp_path / "store" / "claims").iterdir())


def test_what_a_stopped_worker_had_is_left_to_the_one_that_took_it_over(tmp_path):
    stopped = start(tmp_path, 0, 2, stop_at=2, lease=5)
    wait_until(lambda: len(begun(tmp_path)) > 2)
    stopped.send_signal(signal.SIGSTOP)
    piece = begun(tmp_path)[-1][0]
    other = start(tmp_path, 1, 2)
    try:
        wait_until(lambda: [piece, "1"] in begun(tmp_path))
    finally:
        stopped.send_signal(signal.SIGCONT)
    assert (stopped.wait(LONG), other.wait(LONG)) == (0, 0)
    assert "not heard of for 5 s, and another took over" in (tmp_path / "told 0").read_text()
    assert not (tmp_path / "told 1").exists()
    pieces = Counter(piece for piece, _ in begun(tmp_path))
    assert pieces == {str(each): 1 + (str(each) == piece) for each in range(12)}
    assert not list((tmp_path / "store" / "claims").iterdir())


def test_a_piece_that_fails_is_given_back_and_not_tried_again(tmp_path):
    store, tried = Store(tmp_path), []

    def second(piece):
        tried.append(("second", piece))

    def first(piece):
        tried.append(("first", piece))
        if piece == 1:  # another may try it, who cannot know why it failed
            Shared(store, 1, 2).each([2], str, lambda piece: False, second)

    Shared(store, 0, 2).each([1, 2], str, lambda piece: False, first)
    assert tried == [("first", 1), ("second", 2), ("first", 2)]

    def broken(piece):
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        Shared(store, 0, 1).each([1], str, lambda piece: False, broken)
    assert not os.listdir(tmp_path / "claims")


def test_what_another_ended_between_look_and_claim_is_not_done_again(tmp_path):
    looks, did = [], []

    def done(piece):
        looks.append(piece)
        return looks.count(piece) > 1

    Shared(Store(tmp_path), 0, 1).each(["a", "b"], str, done, did.append)
    assert did == []
    assert not os.listdir(tmp_path / "claims")


def test_a_claim_on_a_piece_lasts_while_it_is_worked_on(tmp_path):
    store, looks = Store(tmp_path), []

    def do(piece):
        (path,) = (tmp_path / "claims").glob("*.claim")
        path.write_text(path.read_text().replace('"machine": "', '"machine": "another '))
        for _ in range(2 * TOUCHES):
            assert store.claim(piece) is None
            looks.append(path.stat().st_mtime_ns)
            wait_until(lambda: path.stat().st_mtime_ns != looks[-1])
        assert store.claim(piece) is None

    shared = Shared(store, 0, 1, lease=1)
    shared.each(["a", "b"], str, lambda piece: False, do)
    shared.check()
    assert not os.listdir(tmp_path / "claims")


class Losing(Shared):
    """Loses every piece once, as soon as tokens are counted; nobody else does it."""

    def __init__(self, store, tell):
        super().__init__(store, 0, 1, tell=tell)
        self.doing = None
        self.lost = set()

    def each(self, pieces, name, done, do):
        def losing(piece):
            self.doing = name(piece)
            do(piece)
            self.doing = None

        super().each(pieces, name, done, losing)

    def check(self):
        if self.doing is not None and self.doing not in self.lost:
            self.lost.add(self.doing)
            raise ClaimLost("another process took it over")


def test_whatever_stage_loses_its_claim_the_figures_are_the_same(tmp_path, store):
    search = "  iterative-reap: {corpora: [bible], builder: {sequences: 2, tokens: 2000}}\n"
    text = SUITE.replace("methods:\n", f"methods:\n{search}")
    narrow = {"methods": ["reap", "iterative-reap"], "retain": [0.5], "limit": 4}
    _, expected = go(plan_of(tmp_path, store, text, **narrow), store)
    other, told = Store(tmp_path / "other"), []
    sharing = Losing(other, told.append)
    plan = plan_of(tmp_path, other, text, **narrow)
    outcome = Runner(plan, other, Progress(), sharing=sharing).run()
    assert not outcome.interrupted
    assert {name.split()[0] for name in sharing.lost} == {"statistics", "mask", "evaluations"}
    pd.testing.assert_frame_equal(long_form(results_of(plan, outcome)), expected)
    assert len(told) == len(sharing.lost)


def test_who_waits_for_others_says_so_once(tmp_path):
    store, there, said = Store(tmp_path), set(), []

    def done(piece):
        # Somebody else ends a piece each time that it is asked for.
        if len(said) and piece not in there:
            there.add(piece)
            return False
        return piece in there

    with store.claim("a", 5).kept(), store.claim("b", 5).kept():
        shared = Shared(store, 0, 1, note=said.append)
        shared.each(["a", "b", "c"], str, done, there.add)
    assert there == {"a", "b", "c"}
    assert said == ["waits for 2 of 3 pieces of work, which other workers have claimed"]
