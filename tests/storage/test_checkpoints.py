"""Hashes of files that are remembered, and every way in which a file can change under them."""

from __future__ import annotations

import hashlib
import os
import time

import pytest

from mbench.core.errors import ModelNotFound
from mbench.storage import file_hash as identity
from mbench.storage.checkpoints import Directory, model_key
from mbench.storage.store import Store


def key_of(directory, store=None, *, remote_code=False):
    checkpoint = Directory(directory, remote_code=remote_code, store=store)
    return model_key(checkpoint, remote_code=remote_code)


@pytest.fixture
def directory(tmp_path):
    directory = tmp_path / "model"
    directory.mkdir()
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (directory / name).write_bytes(name.encode())
    return directory


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture
def read(monkeypatch):
    """The names of the files that were read, in order."""
    names = []
    digest = hashlib.file_digest

    def watched(file, algorithm):
        names.append(os.path.basename(file.name))
        return digest(file, algorithm)

    monkeypatch.setattr(identity.hashlib, "file_digest", watched)
    return names


@pytest.fixture
def settled(monkeypatch):
    """Files that were just written count as old."""
    monkeypatch.setattr(identity, "SETTLED", -1)


@pytest.mark.usefixtures("settled")
def test_a_file_is_read_once(directory, store, read):
    key = key_of(directory, store)
    assert sorted(read) == ["config.json", "model.safetensors", "tokenizer.json"]
    read.clear()
    assert key_of(directory, Store(store.root)) == key
    assert read == []
    assert key_of(directory) == key
    assert len(read) == 3


def rewrite(path):
    path.write_bytes(b"MODEL.SAFETENSORS")


def rewrite_with_the_same_times(path):
    before = path.stat()
    rewrite(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace_with_the_same_times(path):
    before = path.stat()
    other = path.with_name("other")
    rewrite(other)
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(path)


def redirect(path):
    other = path.with_name("other")
    rewrite(other)
    path.unlink()
    path.symlink_to(other)


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize(
    "change", [rewrite, rewrite_with_the_same_times, replace_with_the_same_times, redirect]
)
def test_a_changed_file_is_read_again(directory, store, read, change):
    path = directory / "model.safetensors"
    size, key = path.stat().st_size, key_of(directory, store)
    read.clear()
    time.sleep(0.02)  # longer than a tick of the file system's clock
    change(path)
    assert path.stat().st_size == size
    changed = key_of(directory, store)
    assert changed == key_of(directory) != key
    assert len(read) == 1 + 3


def test_a_file_of_this_moment_is_not_remembered(directory, store, read, monkeypatch):
    assert identity.SETTLED >= 10**9
    monkeypatch.setattr(identity, "SETTLED", 10**15)  # however long this test is held up
    key_of(directory, store)
    key_of(directory, store)
    assert len(read) == 6


@pytest.mark.usefixtures("settled")
def test_a_file_that_changes_while_it_is_read_is_not_remembered(directory, store, monkeypatch):
    path, digest = directory / "model.safetensors", hashlib.file_digest

    def meanwhile(file, algorithm):
        found = digest(file, algorithm)
        if file.name == str(path):
            rewrite(path)
        return found

    monkeypatch.setattr(identity.hashlib, "file_digest", meanwhile)
    key_of(directory, store)
    monkeypatch.undo()
    assert key_of(directory, store) == key_of(directory)


def test_what_a_pruned_model_without_stock_weights_is_for_is_told(directory, store):
    (directory / "model.safetensors").rename(directory / "model.mbench.safetensors")
    with pytest.raises(ModelNotFound, match=r"`mbench\.load_pruned` loads it"):
        key_of(directory, store)
    (directory / "model.mbench.safetensors").unlink()
    with pytest.raises(ModelNotFound, match="no weights"):
        key_of(directory, store)


def test_code_enters_only_where_it_may_run(directory):
    without, trusted = (key_of(directory, remote_code=each) for each in (False, True))
    assert trusted != without
    (directory / "modeling.py").write_text("one")
    assert key_of(directory) == without
    first = key_of(directory, remote_code=True)
    (directory / "modeling.py").write_text("two")
    assert len({trusted, first, key_of(directory, remote_code=True)}) == 3
