"""Writes on a store that are killed, find no room or happen many at once leave it whole."""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from helpers.damage import random_bit
from helpers.disk_faults import changes_below, die, disk_full
from helpers.tidy_store import assert_whole_and_tidy, failure_of
from mbench.core.run_record import CorpusProfile
from mbench.storage.store import Key, Store

TESTS = Path(__file__).parents[1]


KEYS = [Key.of("masks", "m", {"n": n}) for n in range(100)]
TABLES = [Key.of("evaluations", "e", {"n": n}) for n in range(100)]
FOLDERS = [Key.of("statistics", "s", {"n": n}) for n in range(100)]


def write_one(store: Store, number: int) -> None:
    """Write, and read back, an artefact of each form."""
    items = pd.DataFrame({"item": ["a", "b"], "acc": [0.0, number]})
    sums, layers = {"x": np.full(9, float(number))}, {"y": [np.full(5, number)] * 2}
    assert store.write_json(KEYS[number], {"n": number}) == {"n": number}
    assert store.write_items(TABLES[number], items).acc.tolist() == [0.0, number]
    store.write_statistic(FOLDERS[number], CorpusProfile(number), sums, layers)


def read_one(store: Store, number: int) -> int:
    """How many of the three forms are there; each is what was written."""
    mask, items = store.read_json(KEYS[number]), store.read_items(TABLES[number])
    profile = store.read_profile(FOLDERS[number])
    assert mask in (None, {"n": number})
    assert items is None or items.acc.tolist() == [0.0, number]
    assert profile in (None, CorpusProfile(number))
    return sum(form is not None for form in (mask, items, profile))


def in_a_child(work) -> int:
    """Exit status of a forked process that does some work: 0, or minus the signal's number."""
    return os.waitstatus_to_exitcode(os.waitpid(forked(work), 0)[1])


def forked(work) -> int:
    """The number of a process that does some work."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        except BaseException as error:
            sys.stderr.write(f"{type(error).__name__}: {error}\n")
        finally:
            os._exit(status)
    return child


# What follows forks, which is safe only where no other thread runs: `python FILE TEST FOLDER`.


def killed_at_every_write(folder: Path) -> str:
    for first in range(1, 1000):
        store = Store(folder / str(first))

        def work(store=store, first=first):
            with changes_below(store.root, first, die):
                write_one(store, 7)

        if in_a_child(work) == 0:
            return f"{first - 1} kills, one at every write"
        assert_whole_and_tidy(store.root, temporaries=1)
        store.sweep()
        assert_whole_and_tidy(store.root)
        write_one(store, 7)
        assert read_one(store, 7) == 3
    raise AssertionError("no end")


def disk_full_at_every_write(folder: Path) -> str:
    failures = 0
    for first in range(1, 1000):
        store = Store(folder / str(first))
        with changes_below(store.root, first, disk_full):
            text = failure_of(partial(write_one, store, 7))
        assert_whole_and_tidy(store.root)
        if not text:
            break
        assert "No space left" in text
        failures += 1
    for size in range(0, 3000, 60):
        store = Store(folder / f"limit-{size}")

        def work(store=store, size=size):
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
            text = failure_of(partial(write_one, store, 7))
            assert not text or "File too large" in text

        assert in_a_child(work) == 0
        assert_whole_and_tidy(store.root)
        failures += 1
    return f"{failures} failed writes"


def many_writers(folder: Path, rounds: int = 25, processes: int = 4) -> str:
    """All write the same artefacts at once, read them, and one of them damages what is there."""
    store = Store(folder / "store")

    def work(number: int) -> None:
        generator = random.Random(number)
        own = Store(folder / "store")
        for key in range(rounds):
            write_one(own, key)
            read_one(own, generator.randrange(key + 1))
            if number == 0:
                victim = own.path(generator.choice((KEYS, TABLES))[generator.randrange(key + 1)])
                if victim.exists():
                    random_bit(victim, generator)

    children = [forked(partial(work, number)) for number in range(processes)]
    failed = sum(os.waitpid(child, 0)[1] != 0 for child in children)
    assert failed == 0
    for number in range(rounds):
        write_one(store, number)
        assert read_one(store, number) == 3
    assert_whole_and_tidy(store.root)
    return f"{processes * 3 * rounds} writes by {processes} processes, {failed} failures"


def more_writers(folder: Path) -> str:
    return many_writers(folder, 100)


FORKING = (killed_at_every_write, disk_full_at_every_write, many_writers, more_writers)


@pytest.mark.parametrize(
    "name",
    [
        "killed_at_every_write",
        "disk_full_at_every_write",
        "many_writers",
        pytest.param("more_writers", marks=pytest.mark.long),
    ],
)
def test_writes_survive(name, tmp_path):
    done = subprocess.run(
        [sys.executable, __file__, name, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stderr


if __name__ == "__main__":
    (chosen,) = (each for each in FORKING if each.__name__ == sys.argv[1])
    print(chosen(Path(sys.argv[2])))
