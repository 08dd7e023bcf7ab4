"""Artefacts are whole or absent, and their keys depend on content alone."""

from __future__ import annotations

import errno
import json
import os

import numpy as np
import pandas as pd
import pyarrow.parquet
import pytest

from mbench.core.errors import StoreError
from mbench.core.interfaces import ExpertMask
from mbench.core.provenance import CorpusProfile
from mbench.storage.atomic import write_atomically
from mbench.storage.store import Key, Store


def test_keys_are_pinned():
    # A change here would orphan every artefact in every user's store.
    parts = {"kind": "mask", "b": [1, 2.5, None, "é"], "a": {"y": True, "x": 0}}
    reordered = {"a": {"x": 0, "y": True}, "b": [1, 2.5, None, "é"], "kind": "mask"}
    expected = "daac845d76ae"
    assert Key.of("masks", "one", parts) == Key.of("masks", "other label", reordered)
    assert Key.of("masks", "one", parts).digest.startswith(expected)
    keep = np.array([[True, False, True], [False, True, True]])
    assert ExpertMask(keep, ("a note",)).content_hash == ExpertMask(keep).content_hash
    assert ExpertMask(keep).content_hash.startswith("df9ad036c011")
    assert ExpertMask(keep[:, ::-1]).content_hash != ExpertMask(keep).content_hash


def test_a_failed_write_leaves_nothing_behind(tmp_path):
    target = tmp_path / "deep" / "file.txt"

    def fill_the_disk(path):
        path.write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(StoreError, match=r"cannot write .*file.txt: No space left on device"):
        write_atomically(target, fill_the_disk)
    assert list(target.parent.iterdir()) == []
    write_atomically(target, lambda path: path.write_text("old"))
    with pytest.raises(StoreError):
        write_atomically(target, fill_the_disk)
    assert target.read_text() == "old"
    assert [path.name for path in target.parent.iterdir()] == ["file.txt"]


MASK = Key.of("masks", "a mask", {"kind": "mask", "seed": 1})
ITEMS = Key.of("evaluations", "an evaluation", {"kind": "evaluation", "mask": "m"})


def test_damaged_artefacts_count_as_absent(tmp_path):
    store = Store(tmp_path)
    store.write_json(MASK, {"a": 1})
    store.write_items(ITEMS, pd.DataFrame({"item": ["1"], "acc": [1.0]}))
    assert store.read_json(MASK) == {"a": 1}
    assert store.read_items(ITEMS).acc.tolist() == [1.0]
    store.path(MASK).write_text('{"a"')
    items = store.path(ITEMS)
    items.write_bytes(items.read_bytes()[:-20])
    assert store.read_json(MASK) is None
    assert store.read_items(ITEMS) is None


def test_every_artefact_says_what_made_it_and_is_absent_where_that_is_not_the_key(tmp_path):
    store = Store(tmp_path)
    statistic = Key.of("statistics", "a statistic", {"kind": "statistic", "code": {"moe": "1"}})
    store.write_json(MASK, {"a": 1})
    store.write_items(ITEMS, pd.DataFrame({"item": ["1"], "acc": [1.0]}))
    store.write_statistic(statistic, CorpusProfile(3), {"x": np.ones(2)}, {})
    assert json.loads(store.path(MASK).read_text())["made_by"] == MASK.record()
    metadata = pyarrow.parquet.read_schema(store.path(ITEMS)).metadata
    assert json.loads(metadata[b"mbench"]) == ITEMS.record()
    meta = json.loads((store.path(statistic) / "meta.json").read_text())
    assert meta["made_by"] == statistic.record()
    # The files of other keys, put in the place of these.
    other = [
        Key.of(key.kind, "other", {**key.made_by, "code": "2"}) for key in (MASK, ITEMS, statistic)
    ]
    for key, stranger in zip((MASK, ITEMS, statistic), other, strict=True):
        store.path(key).rename(store.path(stranger))
    assert store.read_json(other[0]) is None
    assert store.read_items(other[1]) is None
    assert not store.has_statistic(other[2])


def test_statistics_round_trip(tmp_path):
    store = Store(tmp_path)
    key = Key.of("statistics", "a statistic", {"kind": "statistic"})
    sums = {"count": np.arange(24.0).reshape(2, 3, 4)}
    samples = {"gram": [np.full((2, 2), layer, dtype=np.float32) for layer in range(3)]}
    assert not store.has_statistic(key)
    profile = CorpusProfile(7, never_selected=1, gate_mass=(0.5, 0.25, 1.0))
    store.write_statistic(key, profile, sums, samples)
    assert store.has_statistic(key)
    assert store.read_profile(key) == profile
    assert (store.read_sums(key)["count"] == sums["count"]).all()
    assert (store.read_samples(key, 2)["gram"] == samples["gram"][2]).all()
    names = [path.name for path in (tmp_path / "statistics").iterdir()]
    assert names == [key.digest]


def test_a_store_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot use the store"):
        Store(tmp_path / "file" / "store")
