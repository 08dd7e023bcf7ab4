"""`mbench merge`: everything of all stores is in one, whole, and what differs is named."""

from __future__ import annotations

import json
import shutil

import pandas as pd
import pytest

from helpers.command import call
from helpers.s3_server import BUCKET, s3_server
from helpers.stored_examples import ITEMS, MASK, OUTCOMES, PROFILE, SAMPLES, STATISTIC, SUMS, fill
from mbench.storage.housekeeping import contents, describe
from mbench.storage.store import Key, Store

OTHER = Key.of("masks", "another mask", {"kind": "mask", "seed": 2})
FILE = Key.of("facts", "hash of a file", {"kind": "file", "path": "/a"})


@pytest.fixture
def apart(tmp_path):
    """Two stores: one with all examples, and one with a mask and a fact of its machine."""
    fill(Store(tmp_path / "one"))
    other = Store(tmp_path / "two")
    other.write_json(OTHER, {"b": 1})
    other.write_json(FILE, {"sha256": "0"})
    return tmp_path


def merge(folder, *words, status=0):
    done = call("merge", *words, cwd=folder, store=folder / "unused")
    assert done.returncode == status, done
    return done.stdout


def files(store):
    return {path.relative_to(store): path.read_bytes() for path in store.rglob("*.*")}


def test_all_that_means_something_elsewhere_is_copied_once(apart):
    lines = merge(apart, "one", "two", "--into", "all").splitlines()
    assert lines == ["statistics: 1 copied", "masks: 2 copied", "evaluations: 1 copied"]
    together = files(apart / "all")
    assert together == files(apart / "one") | {
        path: content for path, content in files(apart / "two").items() if "facts" not in str(path)
    }
    again = merge(apart, "one", "two", "--into", "all").splitlines()
    assert again == ["statistics: 1 there", "masks: 2 there", "evaluations: 1 there"]
    assert files(apart / "all") == together


def test_what_differs_stays_and_both_are_named(apart):
    into = Store(apart / "all")
    into.write_json(MASK, {"a": 2})
    into.write_items(ITEMS, OUTCOMES.assign(acc=[1.0, 1.0]))
    changed = {"gram": [SAMPLES["gram"][0], SAMPLES["gram"][1] + 1, SAMPLES["gram"][2]]}
    into.write_statistic(STATISTIC, PROFILE, SUMS, changed)
    before = files(apart / "all")
    out = merge(apart, "one", "--into", "all", "--json", status=3)
    printed = json.loads(out)
    found = {each["kind"]: each for each in printed["differences"]}
    assert found["masks"]["difference"] == "a differ"
    assert found["evaluations"]["difference"] == "1 of 2 items differ"
    assert found["statistics"]["difference"] == "layer-001.safetensors differ"
    for kind, key in (("masks", MASK), ("evaluations", ITEMS), ("statistics", STATISTIC)):
        assert found[kind]["label"] == key.label
        assert found[kind]["ours"].endswith(Store(apart / "all").path(key).name)
        assert "all/" in found[kind]["ours"]
        assert "one/" in found[kind]["theirs"]
        assert printed["kinds"][kind] == {"copied": 0, "there": 0, "differ": 1, "damaged": 0}
    assert files(apart / "all") == before
    lines = merge(apart, "one", "--into", "all", status=3).splitlines()
    assert sum("stays beside" in line for line in lines) == 3


def test_outcomes_of_several_values_a_cell_are_compared_too(tmp_path):
    key = Key.of("evaluations", "choices", {"kind": "evaluation"})
    table = pd.DataFrame({"item": ["a", "b"], "loglikelihoods": [[-1.0, -2.0], [-3.0]]})
    one, two = Store(tmp_path / "one"), Store(tmp_path / "two")
    one.write_items(key, table)
    two.write_items(key, table)
    merge(tmp_path, "one", "--into", "all")
    assert merge(tmp_path, "two", "--into", "all") == "evaluations: 1 there\n"
    three = Store(tmp_path / "three")
    three.write_items(key, table.assign(loglikelihoods=[[-1.0, -2.0], [-3.5]]))
    assert "1 of 2 items differ" in merge(tmp_path, "three", "--into", "all", status=3)


def test_what_is_damaged_is_neither_copied_nor_left_in_the_way(apart):
    merge(apart, "one", "--into", "all")
    for store, key in (("one", MASK), ("all", ITEMS)):
        path = Store(apart / store).path(key)
        path.write_bytes(path.read_bytes()[:-1])
    shutil.rmtree(apart / "all" / "masks")
    lines = merge(apart, "one", "two", "--into", "all", status=3).splitlines()
    assert "damaged, not copied" in lines[0]
    assert lines[1:] == [
        "statistics: 1 there",
        "masks: 1 copied, 1 damaged",
        "evaluations: 1 copied",
    ]
    assert all(not describe(e, whole=True).damage for e in contents(Store(apart / "all")))


def test_stores_merge_into_object_storage_and_back(apart, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(apart / "cache"))
    url = f"s3://{BUCKET}/all"
    with s3_server(monkeypatch):
        merge(apart, "one", "two", "--into", url)
        merge(apart, url, "--into", "back")
        assert merge(apart, "two", "--into", url) == "masks: 1 there\n"
    merge(apart, "one", "two", "--into", "all")
    assert files(apart / "back") == files(apart / "all")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("absent", "--into", "all"), "there is no store at absent"),
        (("one", "--into", "one"), "cannot be merged into itself"),
        (("one", "--into", "two/../one"), "cannot be merged into itself"),
        (("one", "report", "--into", "all"), "report is a report and no store: `mbench report`"),
        (("one", "other", "--into", "all"), "other is no store: it has none of statistics, masks,"),
    ],
)
def test_mistakes_are_one_line_and_nothing_is_made(apart, words, line):
    for name, file in (("report", "results.json"), ("other", "notes.md")):
        (apart / name).mkdir()
        (apart / name / file).touch()
    done = call("merge", *words, cwd=apart, store=apart / "unused")
    assert (done.returncode, done.stdout) == (2, "")
    assert line in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (apart / "absent").exists()
    assert not (apart / "all").exists()


def test_an_empty_folder_is_told(apart):
    (apart / "empty").mkdir()
    done = call("merge", "empty", "--into", "unused", cwd=apart, store=apart / "unused")
    assert (done.returncode, done.stdout) == (0, "")
    assert "empty holds nothing that could be merged" in done.stderr
