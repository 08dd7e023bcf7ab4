"""What a revision stands for: as the hub says, and as it said where it does not answer."""

from __future__ import annotations

import datetime
import email.utils
import hashlib
import re
import socket
import subprocess
import time

import pytest
from huggingface_hub import HfApi, constants, hf_hub_download

from helpers.held import LONG
from helpers.hub_server import HubServer
from mbench.storage.hub import client
from mbench.storage.hub.answers import HubRefusal, HubUnreachable
from mbench.storage.hub.fetch import fetch
from mbench.storage.hub.repository import resolve
from mbench.storage.store import Store

FILES = {
    "config.json": b"{}",
    "model.safetensors": bytes(range(256)),
    "a folder/é.txt": b"text\n",
    "a folder/deeper/b.txt": b"",
}


@pytest.fixture
def hub():
    with HubServer(page=2) as hub:
        hub.push("model", "acme/tiny", FILES)
        yield hub


def asked(store, revision=None, name="acme/tiny", kind="model"):
    return resolve(kind, name, revision, store, say=lambda line: None)


def git_hash(content):
    command = ["git", "hash-object", "--stdin"]
    return subprocess.run(command, input=content, capture_output=True).stdout.decode().strip()


@pytest.mark.parametrize("large", [True, False])
def test_commit_and_files_are_those_of_the_hub(large, online, store):
    online.large_files = large
    first = online.commit("model", "acme/tiny")
    found = asked(store)
    assert (found.commit, found.note) == (first, "")
    assert [file.name for file in found.files] == sorted(FILES)
    for file in found.files:
        content = FILES[file.name]
        assert file.size == len(content)
        if large and file.name == "model.safetensors":
            assert file.sha256 == hashlib.sha256(content).hexdigest()
        else:
            assert (file.sha256, file.git) == (None, git_hash(content))


def test_a_revision_is_a_branch_or_a_commit(online, store):
    first = asked(store).commit
    second = online.push("model", "acme/tiny", {"config.json": b"{} "})
    other = online.push("model", "acme/tiny", {"config.json": b"[]"}, branch="other/branch")
    commits = [asked(store, each).commit for each in (None, "main", "other/branch", first, second)]
    assert commits == [second, second, other, first, second]
    with pytest.raises(HubRefusal, match=r"model acme/tiny, revision nope: .* no such revision"):
        asked(store, "nope")


def test_a_commit_that_is_known_is_not_asked_for(online, store):
    first = asked(store)
    online.requests.clear()
    again = asked(store, first.commit)
    assert (again.commit, again.files, again.note) == (first.commit, first.files, "")
    assert online.requests == []


@pytest.mark.parametrize("name", ["no such", "a/b/c", "-x/y", "acme/tiny.git", "..", "acme/.."])
def test_what_is_no_name_is_refused_in_one_line(name, online, store):
    with pytest.raises(HubRefusal, match=r"this cannot be a name|no such public") as caught:
        asked(store, name=name)
    assert "\n" not in str(caught.value)


REASONS = {
    "offline": "HF_HUB_OFFLINE",
    "refused": "no connection: refused",
    "hang": "no answer within 0.2 s",
    "close": "the connection was closed in the middle",
    "503": "503 Service Unavailable",
    "page": "a web page",
    "no json": "no JSON",
    "wrong json": "cannot be read",
    "circle": "redirects in a circle",
    "429 for long": "86400 s",
}


def kill(hub, how, monkeypatch):
    if how == "offline":
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    elif how == "refused":
        hub.stop()
    else:
        monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.2 if how == "hang" else 60)
        hub.fail(how, on="api")


@pytest.mark.parametrize("how", REASONS)
def test_where_the_hub_is_dead_its_last_answer_counts(how, online, store, monkeypatch):
    before = datetime.date.today()
    asked(store)
    commit = online.push("model", "acme/tiny", FILES)
    asked(store)
    kill(online, how, monkeypatch)
    found = asked(store)
    assert found.commit == commit
    assert REASONS[how] in found.note
    (told,) = re.findall(rf": commit {commit[:12]} as resolved on (\S+)$", found.note)
    assert before <= datetime.date.fromisoformat(told) <= datetime.date.today()
    assert "\n" not in found.note


@pytest.mark.parametrize("revision", [None, "main", "commit"])
def test_else_what_the_local_cache_has(revision, online, tmp_path, monkeypatch):
    commit = online.commit("model", "acme/tiny")
    for name in ("config.json", "model.safetensors"):
        hf_hub_download("acme/tiny", name)
    kill(online, "offline", monkeypatch)
    found = asked(Store(tmp_path / "empty"), commit if revision == "commit" else revision)
    assert found.commit == commit
    assert found.note.endswith(f": commit {commit[:12]} as it is in the local cache")
    assert [file.name for file in found.files] == ["config.json", "model.safetensors"]
    folder = fetch(found, ["config.json", "model.safetensors"], None, say=print)
    assert (folder / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    (folder / "model.safetensors").resolve().write_bytes(b"damaged")
    with pytest.raises(HubRefusal, match=r"file model.safetensors: .*HF_HUB_OFFLINE"):
        fetch(found, ["model.safetensors"], None, say=print)


@pytest.mark.parametrize("how", REASONS)
def test_what_nobody_knows_is_refused(how, online, store, monkeypatch):
    kill(online, how, monkeypatch)
    with pytest.raises(HubUnreachable, match="nothing of it is in the local cache") as caught:
        asked(store)
    assert REASONS[how] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_host_without_an_address_is_refused(online, store, monkeypatch):
    def unknown(*arguments, **options):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    monkeypatch.setattr(constants, "ENDPOINT", "http://nowhere.invalid")
    with pytest.raises(HubUnreachable, match="its name cannot be looked up"):
        asked(store)


@pytest.mark.parametrize("fault", ["401", "401 gated", "403", "404 repository", "404 revision"])
def test_a_refusal_is_not_papered_over(fault, online, store):
    asked(store)
    online.fail(fault, on="api")
    with pytest.raises(HubRefusal):
        asked(store)


def test_a_file_that_is_listed_in_one_way_only_is_refused(online, store, monkeypatch):
    """A damaged answer would else hide a tokenizer's file, and another tokenizer would be made."""
    list_repo_tree = HfApi.list_repo_tree

    def damaged(*arguments, **options):
        for each in list_repo_tree(*arguments, **options):
            each.path = each.path.replace("config", "cOnfig")
            yield each

    monkeypatch.setattr(HfApi, "list_repo_tree", damaged)
    with pytest.raises(HubRefusal, match="lists the files in two ways that differ in 'config"):
        asked(store)


def test_a_hub_that_is_dead_is_waited_for_once(online, store, monkeypatch):
    monkeypatch.setattr(client, "DEAD_FOR", 60.0)
    kill(online, "hang", monkeypatch)
    for name in ("acme/tiny", "acme/other", "acme/third"):
        with pytest.raises(HubUnreachable, match="no answer within"):
            asked(store, name=name)
    # The server may come to read a request after its client has given it up.
    until = time.monotonic() + LONG
    while len(online.requests) < client.TRIES_IN_SILENCE and time.monotonic() < until:
        time.sleep(0.02)
    assert len(online.requests) == client.TRIES_IN_SILENCE
    online.heal()
    monkeypatch.setattr(client, "DEAD_FOR", 0.0)
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 60)
    assert asked(store).note == ""


@pytest.mark.parametrize("told", ["1", "date", "window"])
def test_a_hub_that_asks_to_wait_is_given_the_time(told, online, store, monkeypatch):
    lines = []
    if told == "date":
        now = int(time.time())
        monkeypatch.setattr(time, "time", lambda: now)
        online.retry_after = email.utils.formatdate(now + 1, usegmt=True)
    else:
        online.retry_after = "1"
    online.fail("429 window" if told == "window" else "429", on="commit", times=1)
    start = time.monotonic()
    resolve("model", "acme/tiny", None, store, say=lines.append)
    assert 0.9 < time.monotonic() - start < 300
    (line,) = lines
    assert re.fullmatch(r".* too many requests \(429\) and asks to wait 1 s; waiting", line)


def test_neither_token_nor_password_is_told(online, store, monkeypatch):
    token = "hf_" + "Secret" * 4
    monkeypatch.setenv("HF_TOKEN", token)
    lines = []
    for endpoint in (online.url, online.url.replace("//", "//user:password@")):
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        for fault in ("401", "403", "404 repository", "429", "500", "page", "wrong json", "circle"):
            online.fail(fault, on="api")
            with pytest.raises(HubRefusal) as caught:
                resolve("model", "acme/tiny", None, store, say=lines.append)
            lines.append(str(caught.value))
            online.heal()
    assert f"Bearer {token}" in {header for _, _, header in online.requests}
    assert not [line for line in lines if token in line or "password" in line]


def test_the_token_goes_to_no_other_host(online, store, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_" + "Secret" * 4)
    fetch(asked(store), ["config.json", "model.safetensors"], store, say=print)
    headers = {path.startswith("/large"): header for _, path, header in online.requests}
    assert headers[False]
    assert headers[True] is None
