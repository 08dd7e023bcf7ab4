"""No damaged byte becomes a figure, and nothing that happens to a run costs what was stored."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from helpers.damage import DAMAGES, flip, random_bit, remove
from helpers.disk_faults import changes_below, die, disk_full, read_only
from helpers.tiny_suite import Watcher, go, plan_of
from mbench.core.errors import Damaged, StoreError
from mbench.core.provenance import CorpusProfile
from mbench.storage.artefacts import verify
from mbench.storage.housekeeping import contents, describe
from mbench.storage.store import Key, Store

TESTS = Path(__file__).parents[1]
METHODS = ("random", "reap", "expert-sparsity")
ONLY = {"methods": list(METHODS), "retain": [0.5], "set_values": ["seeds=[0]"]}


@dataclass(frozen=True)
class Finished:
    """A small suite, the store of its run, and its figures."""

    folder: Path
    store: Path
    csv: str


def run(folder: Path, store: Path, watcher: Watcher | None = None) -> str:
    """Run the small suite on a store; returns its `results.csv`."""
    opened = Store(store)
    return go(plan_of(folder, opened, **ONLY), opened, watcher)[1].to_csv(index=False)


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """As in the processes that are started here: sums depend on the number of threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Finished:
    folder = tmp_path_factory.mktemp("finished")
    csv = run(folder, folder / "store")
    assert "failed" not in csv
    return Finished(folder, folder / "store", csv)


@pytest.fixture
def copy(finished, tmp_path) -> Path:
    """A copy of the finished store, to be damaged."""
    return shutil.copytree(finished.store, tmp_path / "damaged-store")


def samples(store: Path) -> list[Path]:
    """A file of each kind that the store has, of a statistic also its sums and a layer."""
    folders = sorted((store / "statistics").iterdir())
    layered = [folder for folder in folders if (folder / "layer-001.safetensors").exists()]
    summed = [folder for folder in folders if folder not in layered]
    facts = sorted(path for path in (store / "facts").iterdir() if "sizes of" in path.read_text())
    return [
        sorted((store / "masks").iterdir())[0],
        sorted((store / "evaluations").iterdir())[0],
        facts[0],
        folders[0] / "meta.json",
        summed[0] / "sums.safetensors",
        layered[0] / "layer-001.safetensors",
    ]


def without_masks(store: Path) -> None:
    """Statistics are read when masks are made."""
    for mask in (store / "masks").iterdir():
        remove(mask)


def damage_and_run(finished, store, damages, generator) -> None:
    """Damage files of different artefacts, each in its way, and run the suite on what is left."""
    if any(place.parent.parent.name == "statistics" for place in damages):
        without_masks(store)
    for place, damage in damages.items():
        damage(place, generator)
    watcher = Watcher()
    assert run(finished.folder, store, watcher) == finished.csv, damages
    named = [text for text in watcher.warnings if "is damaged" in text]
    assert len(named) == len(damages), (damages, watcher.warnings)
    assert all("set aside as damaged/" in text for text in named)
    assert all(not described.damage for described in map(whole, contents(Store(store))))


def whole(stored):
    return describe(stored, whole=True)


@pytest.mark.parametrize("chosen", [(0, 1, 2), (1, 4, 5), (2, 3)], ids=str)
def test_damage_is_named_and_computed_again(finished, copy, chosen):
    generator = random.Random(sum(chosen))
    places = [samples(copy)[number] for number in chosen]
    damages = dict(zip(places, generator.sample(DAMAGES, len(places)), strict=True))
    damage_and_run(finished, copy, damages, generator)


@pytest.mark.long
def test_all_damage_to_all_kinds_is_named_and_computed_again(finished, tmp_path):
    generator = random.Random(0)
    runs = 0
    for damage in (*DAMAGES, *[random_bit] * 10):
        for number in range(6):
            store = shutil.copytree(finished.store, tmp_path / "store")
            damage_and_run(finished, store, {samples(store)[number]: damage}, generator)
            shutil.rmtree(store)
            runs += 1
    print(f"{runs} damaged files, each named and computed again, 0 figures changed")


def flipped_bits(store: Path, generator: random.Random, of_each: int) -> dict[str, int]:
    """Flip random bits of every file of the store; how many were noticed, by kind of file."""
    noticed: dict[str, int] = {}
    for stored in contents(Store(store)):
        files = sorted(stored.path.iterdir()) if stored.path.is_dir() else [stored.path]
        for file in files:
            name = file.name.split("-")[0] if stored.path.is_dir() else stored.key.kind
            for _ in range(of_each):
                bit = generator.randrange(8 * file.stat().st_size)
                flip(file, bit)
                with pytest.raises(Damaged):
                    verify(stored.key.kind, stored.path, stored.key.digest)
                flip(file, bit)
                noticed[name] = noticed.get(name, 0) + 1
    return noticed


def test_flipped_bits_are_noticed_in_every_kind_of_file(copy):
    noticed = flipped_bits(copy, random.Random(0), 20)
    assert min(noticed.values()) >= 20
    kinds = {"masks", "evaluations", "facts", "meta.json", "sums.safetensors", "layer"}
    assert noticed.keys() == kinds


@pytest.mark.long
def test_many_flipped_bits_are_noticed(copy):
    noticed = flipped_bits(copy, random.Random(1), 2000)
    print(f"{sum(noticed.values())} bits flipped, all noticed: {noticed}")


def test_a_full_disk_at_any_write_costs_one_line_and_nothing_stored(finished, tmp_path):
    generator = random.Random(0)
    store = tmp_path / "store"
    Store(store)
    failures = []
    while not failures or failures[-1]:
        with changes_below(store, generator.randrange(10, 100), disk_full):
            failures.append(failure_of(lambda: run(finished.folder, store)))
        assert_whole_and_tidy(store)
    assert len(failures) > 1
    for text in failures[:-1]:
        assert "No space left on device" in text
        assert "\n" not in text
    assert run(finished.folder, store) == finished.csv


def failure_of(work) -> str:
    """The text of the `StoreError` that some work raises, or nothing."""
    try:
        work()
    except StoreError as error:
        return str(error)
    return ""


def assert_whole_and_tidy(store: Path, temporaries: int = 0) -> None:
    assert all(not described.damage for described in map(whole, contents(Store(store))))
    assert len(list(store.glob("*/.*"))) <= temporaries


def test_a_finished_suite_runs_from_a_store_that_cannot_be_written(finished, copy, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
    with changes_below(copy, 1, read_only) as changes:
        assert run(finished.folder, copy) == finished.csv
    assert changes.count == 0
    samples(copy)[0].unlink()
    evaluations = sorted((copy / "evaluations").iterdir())
    for evaluation in evaluations:
        flip(evaluation, 900)
    watcher = Watcher()
    with (
        changes_below(copy, 1, read_only),
        pytest.raises(StoreError, match=r"cannot be written, and lacks of demo masks \(1\)"),
    ):
        run(finished.folder, copy, watcher)
    assert watcher.tokens == 0
    assert watcher.warnings
    assert all("cannot be moved" in text for text in watcher.warnings)
    assert sorted((copy / "evaluations").iterdir()) == evaluations


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


RUN = """\
import os, random, sys, time
from pathlib import Path
tests, folder, root, methods, count, seed = sys.argv[1:]
sys.path.insert(0, tests)
from helpers.disk_faults import changes_below, die
from helpers.tiny_suite import SUITE, go, plan_of
from mbench.storage.housekeeping import contents, describe
from mbench.storage.store import Store
import torch, transformers, mbench.evaluate.perplexity, mbench.moe.load, mbench.moe.profile

# Forked, so that all share what is imported.
def started(number, first):
    child = os.fork()
    if child:
        return child
    place = Path(folder) / str(number)
    place.mkdir(parents=True, exist_ok=True)
    only = {"methods": methods.split(","), "retain": [0.5], "set_values": ["seeds=[0]"]}
    with changes_below(Path(root), first, die):
        store = Store(Path(root))
        table = go(plan_of(place, store, **only), store)[1]
    (place / "results.csv").write_text(table.to_csv(index=False))
    os._exit(0)

def together():
    children = [started(number, 10**9) for number in range(int(count))]
    sys.exit(any(os.waitpid(child, 0)[1] for child in children))

def killed():
    generator, kills = random.Random(int(seed)), 0
    while True:
        at_a_write = generator.random() < 0.7
        child = started(0, generator.randrange(2, 120) if at_a_write else 10**9)
        if not at_a_write:
            time.sleep(generator.random() * 10)
            os.kill(child, 9)
        status = os.waitpid(child, 0)[1]
        if status == 0:
            break
        assert status == 9, status
        kills += 1
        for stored in contents(Store(Path(root))):
            assert not describe(stored, whole=True).damage
    print(kills)

together() if seed == "no kills" else killed()
"""


def result_of(folder: Path, store: Path, count: int, seed: str) -> bytes:
    """Run the small suite so often at once, or until it is no longer killed; what was printed."""
    words = [str(TESTS), str(folder), str(store), ",".join(METHODS), str(count), seed]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", RUN, *words]
    return subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE).stdout


def together(finished: Finished, tmp_path: Path, count: int) -> None:
    result_of(tmp_path, tmp_path / "store", count, "no kills")
    for number in range(count):
        assert (tmp_path / str(number) / "results.csv").read_text() == finished.csv
    assert not (tmp_path / "store" / "damaged").exists()
    assert_whole_and_tidy(tmp_path / "store")


def test_two_runs_at_once_give_the_same_figures(finished, tmp_path):
    together(finished, tmp_path, 2)


@pytest.mark.long
def test_many_runs_at_once_give_the_same_figures(finished, tmp_path):
    for number in range(6):
        (tmp_path / str(number)).mkdir()
        together(finished, tmp_path / str(number), 4)
    print("6 sets of 4 runs on one store at once, 0 failures, 0 figures changed")


@pytest.mark.long
def test_a_run_killed_at_any_write_goes_on_where_it_was(finished, tmp_path):
    kills = 0
    for seed in range(12):
        store = tmp_path / f"store-{seed}"
        kills += int(result_of(tmp_path / "out", store, 1, str(seed)))
        assert (tmp_path / "out" / "0" / "results.csv").read_text() == finished.csv
        shutil.rmtree(tmp_path / "out")
        assert_whole_and_tidy(store)
    print(f"{kills} killed runs, nothing lost, 0 figures changed")


if __name__ == "__main__":
    (chosen,) = (each for each in FORKING if each.__name__ == sys.argv[1])
    print(chosen(Path(sys.argv[2])))
