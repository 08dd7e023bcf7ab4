"""Artefacts are whole or absent, and their keys depend on content alone."""

from __future__ import annotations

import errno
import os

import numpy as np
import pandas as pd
import pytest

from mbench.core.errors import StoreError
from mbench.core.interfaces import ExpertMask
from mbench.storage.store import Store, key_of, write_atomically


def test_keys_are_pinned():
    # A change here would orphan every artefact in every user's store.
    parts = {"kind": "mask", "b": [1, 2.5, None, "é"], "a": {"y": True, "x": 0}}
    reordered = {"a": {"x": 0, "y": True}, "b": [1, 2.5, None, "é"], "kind": "mask"}
    expected = "daac845d76ae"
    assert key_of(parts) == key_of(reordered)
    assert key_of(parts).startswith(expected)
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


def test_damaged_artefacts_count_as_absent(tmp_path):
    store = Store(tmp_path)
    store.write_json("masks", "k", {"a": 1})
    store.write_items("k", pd.DataFrame({"item": ["1"], "acc": [1.0]}))
    assert store.read_json("masks", "k") == {"a": 1}
    assert store.read_items("k").acc.tolist() == [1.0]
    (tmp_path / "masks" / "k.json").write_text('{"a"')
    items = tmp_path / "evaluations" / "k.parquet"
    items.write_bytes(items.read_bytes()[:-20])
    assert store.read_json("masks", "k") is None
    assert store.read_items("k") is None


def test_statistics_round_trip(tmp_path):
    store = Store(tmp_path)
    sums = {"count": np.arange(24.0).reshape(2, 3, 4)}
    samples = {"gram": [np.full((2, 2), layer, dtype=np.float32) for layer in range(3)]}
    assert not store.has_statistic("k")
    store.write_statistic("k", {"tokens": 7}, sums, samples)
    assert store.has_statistic("k")
    assert store.read_statistic_meta("k") == {"tokens": 7}
    assert (store.read_sums("k")["count"] == sums["count"]).all()
    assert (store.read_samples("k", 2)["gram"] == samples["gram"][2]).all()
    assert sorted(path.name for path in (tmp_path / "statistics").iterdir()) == ["k"]


def test_a_store_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot use the store"):
        Store(tmp_path / "file" / "store")
