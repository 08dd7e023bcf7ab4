"""A store at a URL serves what one in a folder serves, whoever writes beside it or dies."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time

import numpy as np
import pytest

from helpers import plain_places
from helpers.held import LONG
from helpers.s3_server import BUCKET, s3_server
from helpers.stored_examples import (
    ITEMS,
    MASK,
    OUTCOMES,
    PROFILE,
    SAMPLES,
    STATISTIC,
    SUMS,
    content,
    fill,
)
from mbench.core.errors import StoreError
from mbench.storage.housekeeping import contents, describe, set_aside
from mbench.storage.remote import connection
from mbench.storage.remote.read_cache import ReadCache
from mbench.storage.store import Key, Store


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def s3(monkeypatch):
    with s3_server(monkeypatch) as server:
        yield server


@pytest.fixture(params=["s3", "memory", "plain"])
def url(request):
    """Of an empty place: with conditions, in this process, and without conditions."""
    if request.param == "s3":
        request.getfixturevalue("s3")
        return f"s3://{BUCKET}/some/prefix"
    plain_places.register()
    if request.param == "memory":
        from fsspec.implementations.memory import MemoryFileSystem

        MemoryFileSystem.store.clear()
    return f"{request.param}://some/prefix"


def names(store: Store) -> set[str]:
    """All that is stored, and nothing else, by name."""
    return {f"{each.key.kind}/{each.path.name}" for each in contents(store)}


def damage(store: Store, key, file: str = "") -> None:
    """Change the last bit of a stored file, by other means than the store's."""
    import fsspec

    system, path = fsspec.url_to_fs(str(store.path(key)))
    (path,) = (each for each in system.find(path) if file in each)
    data = system.cat_file(path)
    system.pipe_file(path, data[:-1] + bytes([data[-1] ^ 1]))


def test_it_serves_what_a_folder_serves(url, tmp_path):
    folder, place = Store(tmp_path / "folder"), Store(url)
    for store in (folder, place):
        fill(store)
    again = Store(url)
    assert content(again) == content(folder)
    assert (again.read_sums(STATISTIC)["count"] == SUMS["count"]).all()
    for layer in range(3):
        assert (again.read_samples(STATISTIC, layer)["gram"] == SAMPLES["gram"][layer]).all()
    assert names(again) == names(folder)
    assert sum(e.size for e in contents(again)) == sum(e.size for e in contents(folder))
    assert all(not describe(each, whole=True).damage for each in contents(again))
    assert all(each.written > 1e9 for each in contents(again))


def test_what_exists_stays_unless_it_is_of_other_items(url):
    store = Store(url)
    fill(store)
    assert store.write_json(MASK, {"a": 2}) == {"a": 1}
    assert store.write_json(MASK, {"a": 3}, replace=True) == store.read_json(MASK) == {"a": 3}
    assert store.write_items(ITEMS, OUTCOMES.assign(acc=0.5)).acc.tolist() == [1.0, 0.0]
    others = OUTCOMES.assign(item=["1", "3"])
    assert Store(url).write_items(ITEMS, others).item.tolist() == ["1", "3"]
    assert store.read_items(ITEMS).item.tolist() == ["1", "3"]
    store.write_statistic(STATISTIC, PROFILE, {"count": np.zeros(1)}, {})
    assert store.read_sums(STATISTIC)["count"].shape == (2, 3, 4)
    store.forget(ITEMS)
    store.forget(ITEMS)
    assert store.read_items(ITEMS) is None


@pytest.mark.parametrize(
    ("key", "file"), [(MASK, ""), (ITEMS, ""), (STATISTIC, "meta"), (STATISTIC, "layer-001")]
)
def test_what_is_damaged_is_set_aside_and_written_again(url, key, file):
    fill(Store(url))
    whole = content(Store(url))
    store = Store(url)
    damage(store, key, file)
    reports: list[str] = []
    store.listen(reports.append)
    assert store.verify(key) is None
    assert store.was_set_aside(key)
    assert len(reports) == 1
    assert key.label in reports[0]
    assert set_aside(store) == [reports[0].split(" as ")[-1]]
    assert key not in {each.key for each in contents(store)}
    fill(store)
    assert content(Store(url)) == whole
    assert Store(url).verify(key) == key.record()


def test_what_cannot_be_moved_is_named_and_overwritten(monkeypatch):
    plain_places.register()
    monkeypatch.setattr(connection, "ATOMIC", connection.ATOMIC | {"keeping"})
    store = Store("keeping://place")
    fill(store)
    whole = content(store)
    for key, file in ((MASK, ""), (ITEMS, ""), (STATISTIC, "layer-001")):
        damage(store, key, file)
        opened = Store("keeping://place")
        reports: list[str] = []
        opened.listen(reports.append)
        assert opened.verify(key) is None
        assert "cannot be moved: " in reports[0]
        fill(opened)
        assert opened.verify(key) == key.record()
    assert content(Store("keeping://place")) == whole


def test_a_copy_on_this_machine_is_used_only_while_it_is_right(s3, tmp_path):
    url = f"s3://{BUCKET}"
    fill(Store(url))
    copies = tmp_path / "cache" / "mbench" / "fetched"
    for path in copies.iterdir():
        path.unlink()
    for changed in (None, b"", b"wrong"):
        if changed is not None:
            for path in copies.iterdir():
                path.write_bytes(changed)
        assert (Store(url).read_samples(STATISTIC, 1)["gram"] == SAMPLES["gram"][1]).all()
        (copy,) = copies.iterdir()
        assert len(copy.read_bytes()) > 5
    # What is here is not asked for again.
    damage(Store(url), STATISTIC, "layer-001")
    assert (Store(url).read_samples(STATISTIC, 1)["gram"] == SAMPLES["gram"][1]).all()


WRITER = """
import os, sys
import numpy as np
from helpers.stored_examples import PROFILE, STATISTIC
from mbench.storage.remote.connection import Connection
from mbench.storage.store import Store
number, die_after = float(sys.argv[2]), int(sys.argv[3])
sent, send = [], Connection.send
def dying(self, file, path):
    send(self, file, path)
    sent.append(path)
    if len(sent) == die_after:
        os._exit(9)
Connection.send = dying
sums, samples = {"a": np.full(9, number)}, {"b": [np.full(9, number)] * 2}
Store(sys.argv[1]).write_statistic(STATISTIC, PROFILE, sums, samples)
"""


def writer(url, number, die_after=0):
    command = [sys.executable, "-c", WRITER, url, str(number), str(die_after)]
    return subprocess.Popen(command, cwd="tests")


def test_a_killed_writer_leaves_nothing_that_counts(s3):
    url = f"s3://{BUCKET}/p"
    for sent in (1, 3):
        assert writer(url, sent, die_after=sent).wait(LONG) == 9
        assert not Store(url).has_statistic(STATISTIC)
        assert names(Store(url)) == set()
    assert writer(url, 5).wait(LONG) == 0
    assert (Store(url).read_sums(STATISTIC)["a"] == 5).all()


def test_of_two_writers_that_differ_one_is_stored_whole(s3):
    url = f"s3://{BUCKET}"
    for each in [writer(url, number) for number in (1, 2, 3)]:
        assert each.wait(LONG) == 0
    store = Store(url)
    assert store.verify(STATISTIC) is not None
    found = {float(store.read_sums(STATISTIC)["a"][0])}
    found |= {float(store.read_samples(STATISTIC, layer)["b"][0]) for layer in range(2)}
    assert len(found) == 1


def test_a_server_that_dies_costs_one_line_and_nothing_stored(s3):
    url = f"s3://{BUCKET}/p"
    store = Store(url)
    store.write_json(MASK, {"a": 1})
    s3.stop()
    for act in (
        lambda: store.read_json(MASK),
        lambda: store.write_items(ITEMS, OUTCOMES),
        lambda: Store(url),
        lambda: store.claim("work"),
    ):
        with pytest.raises(StoreError, match=rf"cannot \w+ s3://{BUCKET}/p") as failure:
            act()
        assert "\n" not in str(failure.value)
    s3.start()
    fill(store)
    assert names(Store(url)) == names(store)
    assert len(names(store)) == 3


def test_a_bucket_that_is_not_there_is_named_and_not_made(s3):
    with pytest.raises(StoreError, match=r"s3://absent/p: there is no such bucket"):
        Store("s3://absent/p")
    with pytest.raises(StoreError, match=r"s3://absent/p: there is no such bucket"):
        Store("s3://absent/p", make=False)
    assert [b["Name"] for b in s3.client().list_buckets()["Buckets"]] == [BUCKET]
    with pytest.raises(StoreError, match=rf"there is no store at s3://{BUCKET}/p"):
        Store(f"s3://{BUCKET}/p", make=False)


@pytest.mark.parametrize(
    ("url", "line"),
    [
        ("nothing://a", "nothing"),
        ("file://machine/a", "file:///PATH"),
        ("simplecache::s3://a", "one place"),
    ],
)
def test_a_url_that_cannot_be_used_is_one_line(url, line):
    with pytest.raises(StoreError, match=line) as failure:
        Store(url)
    assert "\n" not in str(failure.value)


def test_a_file_url_is_the_folder(tmp_path):
    folder = tmp_path / "with space"
    fill(Store((folder).as_uri()))
    assert content(Store(folder)) == content(Store(folder.as_uri()))
    assert Store(folder.as_uri()).root == folder


def test_a_place_that_denies_everything_is_named(s3):
    url = f"s3://{BUCKET}/p"
    store = Store(url)
    fill(store)
    s3.deny()
    for act in (lambda: Store(url), lambda: store.read_json(MASK)):
        with pytest.raises(StoreError, match=rf"s3://{BUCKET}/p.*: permission denied") as failure:
            act()
        assert "\n" not in str(failure.value)
    s3.allow()
    assert store.read_json(MASK) == {"a": 1}


def test_a_place_that_only_reads_serves_what_it_has(monkeypatch):
    plain_places.register()
    fill(Store("plain://place"))
    monkeypatch.setattr(plain_places.Plain, "pipe_file", plain_places.denied)
    store = Store("plain://place")
    assert not store.writable
    assert store.read_json(MASK) == {"a": 1}
    fact = Key.of("facts", "a fact", {"kind": "fact"})
    assert store.write_json(fact, 1) == 1
    with pytest.raises(StoreError, match=r"plain://place cannot be written, and lacks a mask"):
        store.require_writable("a mask")


def test_copies_take_no_more_than_they_may(tmp_path):
    content = {hashlib.sha256(data).hexdigest(): data for data in (b"a" * 40, b"b" * 40, b"c" * 40)}
    cache, fetched = ReadCache(tmp_path / "copies", most=100), []

    def read(sha256):
        def fetch(file):
            fetched.append(sha256)
            file.write_bytes(content[sha256])

        return cache.with_file(sha256, fetch, lambda file: file.read_bytes())

    one, two, three = content
    for number, sha256 in enumerate((one, two, one, three)):
        assert read(sha256) == content[sha256]
        # Far enough apart for any file system's clock.
        os.utime(tmp_path / "copies" / sha256, (number, number))
    assert {path.name for path in (tmp_path / "copies").iterdir()} == {one, three}
    assert fetched == [one, two, three]
    assert read(two) == content[two]
    assert {path.name for path in (tmp_path / "copies").iterdir()} == {two, three}


def test_what_was_never_finished_is_removed_after_a_week(s3, monkeypatch):
    url = f"s3://{BUCKET}/p"
    assert writer(url, 1, die_after=2).wait(LONG) == 9
    store = Store(url)
    store.write_json(MASK, {"a": 1})
    assert store.claim("work") is not None

    def stored():
        return s3.client().list_objects_v2(Bucket=BUCKET)["KeyCount"]

    store.sweep()
    assert stored() == 2 + 1 + 1
    later = time.time() + 8 * 24 * 3600
    monkeypatch.setattr(time, "time", lambda: later)
    store.sweep()
    assert stored() == 1
    assert store.read_json(MASK) == {"a": 1}
