"""Files on disk have the bytes of their commit, whatever the local cache has, or are not given."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import pytest
from huggingface_hub import constants

from helpers.hub_server import HubServer
from mbench.storage import file_hash
from mbench.storage.hub.answers import HubRefusal
from mbench.storage.hub.fetch import fetch, missing, sha256_of
from mbench.storage.hub.repository import HubFile, Repository, resolve

FILES = {
    "config.json": b'{"a": 1}',
    "model.safetensors": bytes(range(256)) * 8192,
    "a folder/tokenizer.json": b"[]",
}


@pytest.fixture
def hub():
    with HubServer() as hub:
        hub.push("model", "acme/tiny", FILES)
        yield hub


@pytest.fixture
def repository(online, store):
    return resolve("model", "acme/tiny", None, store, say=print)


def contents(folder):
    return {name: (folder / name).read_bytes() for name in FILES}


def test_a_push_in_between_changes_nothing(online, repository, store):
    online.push("model", "acme/tiny", {name: b"new" for name in FILES})
    assert contents(fetch(repository, FILES, store, say=print)) == FILES


@pytest.mark.parametrize("name", FILES)
def test_a_hub_that_gives_the_new_bytes_for_the_old_commit_is_refused(
    name, online, repository, store
):
    online.push("model", "acme/tiny", {each: b"x" + FILES[each][1:] for each in FILES})
    online.fail("newest", on=name)
    with pytest.raises(HubRefusal, match=rf"model acme/tiny, file {name}: its .* fetched again"):
        fetch(repository, FILES, store, say=print)
    online.heal()
    assert contents(fetch(repository, FILES, store, say=print)) == FILES


def flipped(path: Path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.resolve().write_bytes(content)


def halved(path: Path):
    path.resolve().write_bytes(path.read_bytes()[: len(path.read_bytes()) // 2])


def emptied(path: Path):
    path.resolve().write_bytes(b"")


def dangling(path: Path):
    path.resolve().unlink()


def linked_elsewhere(path: Path):
    elsewhere = next(each for each in path.parents if each.name == "cache").parent / "elsewhere"
    elsewhere.write_bytes(b"mine")
    path.unlink()
    path.symlink_to(elsewhere)


def replaced_by_a_folder(path: Path):
    path.unlink()
    path.mkdir()
    (path / "x").write_text("")


DAMAGES = [flipped, halved, emptied, dangling, linked_elsewhere, replaced_by_a_folder]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", FILES)
def test_a_file_of_the_cache_that_was_damaged_is_fetched_again(
    name, damage, repository, store, tmp_path
):
    lines, came = [], []
    folder = fetch(repository, FILES, store, say=print)
    damage(folder / name)
    again = fetch(repository, FILES, store, say=lines.append, advance=came.append)
    assert contents(again) == FILES
    if damage is not dangling:
        (line,) = lines
        assert line.startswith(f"model acme/tiny, file {name}: it")
        assert line.endswith("; it is fetched again")
    if damage is linked_elsewhere:
        assert (tmp_path / "elsewhere").read_bytes() == b"mine"


def test_a_file_that_the_commit_has_not_is_refused(repository, store):
    with pytest.raises(HubRefusal, match=r"model acme/tiny: commit \w+ has no file 'vocab.txt'"):
        fetch(repository, ["vocab.txt"], store, say=print)


OUTSIDE = ["../x", "a/../../x", "/etc/x", "a\\..\\x", "C:/x", "C:x", "a//x", "./x", "x\x00", "x\n"]


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_name_that_leads_out_of_the_folder_is_refused(name, online, store):
    online.push("model", "acme/evil", {name: b"x"})
    repository = resolve("model", "acme/evil", None, store, say=print)
    online.requests.clear()
    with pytest.raises(HubRefusal, match=r"model acme/evil: the file name .* leads out") as caught:
        fetch(repository, [name], store, say=print)
    assert str(caught.value).isprintable()
    assert online.requests == []


def test_what_is_missing_is_what_comes(online, repository, store, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    assert missing(repository, FILES) == sum(map(len, FILES.values()))
    for fault in ("cut", "short"):
        online.fail(fault, on="model.safetensors", times=1)
    came = []
    fetch(repository, ["model.safetensors"], store, say=print, advance=came.append)
    assert sum(came) == len(FILES["model.safetensors"])
    assert len(came) > 1
    rest = len(FILES["config.json"]) + len(FILES["a folder/tokenizer.json"])
    assert missing(repository, FILES) == rest


def test_what_was_compared_is_not_read_again(repository, store, monkeypatch):
    monkeypatch.setattr(file_hash, "SETTLED", -1)
    fetch(repository, FILES, store, say=print)
    read = []
    digest = hashlib.file_digest
    monkeypatch.setattr(
        hashlib, "file_digest", lambda file, kind: read.append(file.name) or digest(file, kind)
    )
    fetch(repository, FILES, store, say=print)
    assert read == []


def test_the_key_of_a_file_is_its_sha256(repository, store):
    before = sha256_of(repository, "model.safetensors", store)
    fetch(repository, FILES, store, say=print)
    for name, content in FILES.items():
        assert sha256_of(repository, name, store) == hashlib.sha256(content).hexdigest()
    assert before == hashlib.sha256(FILES["model.safetensors"]).hexdigest()


def test_one_refusal_ends_the_others(online, repository, store):
    """A file that the hub asks to wait for does not hold up the line about another."""
    online.retry_after = "300"
    online.fail("429", on="config.json")
    online.fail("404 file", on="a folder/tokenizer.json")
    start = time.monotonic()
    with pytest.raises(HubRefusal, match="has no such file"):
        fetch(repository, FILES, store, say=print)
    assert time.monotonic() - start < 250
    online.heal()
    assert contents(fetch(repository, FILES, store, say=print)) == FILES


def test_what_is_whole_needs_no_hub(online, repository, store, monkeypatch):
    fetch(repository, FILES, store, say=print)
    online.requests.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert contents(fetch(repository, FILES, store, say=print)) == FILES
    assert online.requests == []


def test_a_full_disk_is_one_line(repository, store, monkeypatch):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device", "/cache/blobs/x")

    monkeypatch.setattr("os.makedirs", full)
    with pytest.raises(HubRefusal, match=r"/cache/blobs/x: No space left on device") as caught:
        fetch(repository, FILES, store, say=print)
    assert "\n" not in str(caught.value)


def test_a_listing_that_came_damaged_is_asked_for_again(online, repository, store):
    """It is remembered by commit, so that nothing else would ever be compared with it."""
    wrong = tuple(
        HubFile(file.name, file.size, file.sha256 and "0" * 64, file.git)
        for file in repository.files
    )
    damaged = Repository("model", "acme/tiny", None, repository.commit, wrong)
    with pytest.raises(HubRefusal, match=r"its sha256 is \w+, that of commit \w+ is 0000"):
        fetch(damaged, FILES, store, say=print)
    online.requests.clear()
    again = resolve("model", "acme/tiny", repository.commit, store, say=print)
    assert online.requests
    assert contents(fetch(again, FILES, store, say=print)) == FILES
