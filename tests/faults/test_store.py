"""No damaged byte becomes a figure, and nothing that happens to a run costs what was stored."""

from __future__ import annotations

import os
import random
import shutil
import signal
from dataclasses import dataclass
from multiprocessing.process import BaseProcess as Process
from pathlib import Path

import pytest

from helpers.damage import DAMAGES, flip, random_bit, remove
from helpers.disk_faults import changes_below, disk_full, read_only
from helpers.forked import forked
from helpers.held import LONG
from helpers.tidy_store import assert_whole_and_tidy, failure_of, whole
from helpers.tiny_suite import Watcher, go, plan_of, run_until
from mbench.core.errors import Damaged, StoreError
from mbench.storage.artefacts import verify
from mbench.storage.housekeeping import contents
from mbench.storage.store import Store

pytestmark = pytest.mark.usefixtures("one_thread")

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
        pytest.raises(StoreError, match="cannot be written, and lacks 1 mask and 6 evaluations"),
    ):
        run(finished.folder, copy, watcher)
    assert watcher.tokens == 0
    assert watcher.warnings
    assert all("cannot be moved" in text for text in watcher.warnings)
    assert sorted((copy / "evaluations").iterdir()) == evaluations


def started(folder: Path, store: Path, first: int = 10**9) -> Process:
    """A process that runs the small suite, and dies at its change `first` of the store."""
    folder.mkdir(parents=True, exist_ok=True)
    process = forked(run_until, folder, store, ONLY, first)
    process.start()
    return process


def kills_of(folder: Path, store: Path, seed: int) -> int:
    """Run it until it is no longer killed; how often it was."""
    generator, kills = random.Random(seed), 0
    while True:
        at_a_write = generator.random() < 0.7
        process = started(folder, store, generator.randrange(2, 120) if at_a_write else 10**9)
        if not at_a_write:
            process.join(generator.random() * 10)
            process.kill()
        process.join()
        if process.exitcode == 0:
            return kills
        assert process.exitcode == -signal.SIGKILL
        kills += 1
        assert all(not described.damage for described in map(whole, contents(Store(store))))


def together(finished: Finished, tmp_path: Path, count: int) -> None:
    processes = [started(tmp_path / str(n), tmp_path / "store") for n in range(count)]
    for number, process in enumerate(processes):
        process.join(LONG)
        assert process.exitcode == 0
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
        kills += kills_of(tmp_path / "out", store, seed)
        assert (tmp_path / "out" / "results.csv").read_text() == finished.csv
        shutil.rmtree(tmp_path / "out")
        assert_whole_and_tidy(store)
    print(f"{kills} killed runs, nothing lost, 0 figures changed")
