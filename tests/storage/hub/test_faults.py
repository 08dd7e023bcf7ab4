"""Every way in which a hub fails, at every request: the right bytes come, or one line says why."""

from __future__ import annotations

import itertools
import re
import time

import pytest
from huggingface_hub import constants

from helpers.hub_faults import FAULTS, IN_BODY
from helpers.hub_server import HubServer
from mbench.storage.hub.answers import HubRefusal
from mbench.storage.hub.fetch import fetch
from mbench.storage.hub.repository import resolve

MODEL = {
    "config.json": b'{"model_type": "mixtral"}' * 20,
    "tokenizer_config.json": b'{"add_bos_token": true}' * 20,
    "model.safetensors": bytes(range(256)) * 40,
}
DATA = {"train.parquet": b"PAR1" * 1000, "README.md": b"# data"}

PLACES = ("commit", "tree", *MODEL, "large model.safetensors", "train.parquet")

NO_HEADERS = "an answer without the headers of a hub"
OF_BYTES = r"its (size|sha256|git blob id) is \w+, that of commit \w+ is|came with another size"
LINES = {
    "401": r"does not accept the credentials .*`hf auth login`",
    "401 gated": r"only to those who have access: ask for access .*`hf auth login`",
    "401 unknown": r"no such public repository; if it is a private one, .*`hf auth login`",
    "403": r"forbids it \(You lack",
    "403 gated": r"only to those who have access, which your account lacks: ask for access",
    "404 repository": r"no such public repository",
    "404 revision": r"no such revision",
    "404 file": r"no such file",
    "429": r"too many requests \(429\)",
    "429 for long": r"too many requests \(429\) and asks to wait 86400 s",
    "429 window": r"too many requests \(429\)",
    "500": r"trouble of its own \(500 Internal Server Error\); asked 4 times",
    "502": r"trouble of its own \(502 Bad Gateway\); asked 4 times",
    "503": r"trouble of its own \(503 Service Unavailable\); asked 4 times",
    "page": r"a web page|without the headers",
    "hang": r"no answer within 0.5 s|fell silent",
    "close": r"closed in the middle of an answer|broke off",
    "circle": r"redirects in a circle",
    "no json": rf"no JSON came in its place|{NO_HEADERS}|{OF_BYTES}",
    "wrong json": rf"cannot be read|{NO_HEADERS}|{OF_BYTES}",
    "corrupt": rf"cannot be read|no JSON came in its place|{OF_BYTES}",
    "elsewhere": r"a web page|without the headers",
    "cut": r"broke off in the middle|closed in the middle",
    "reset": r"broke off in the middle|closed in the middle",
}
"""What the line must say; of a fault that is not here, the bytes differ."""


@pytest.fixture(scope="module")
def hub():
    with HubServer() as hub:
        hub.push("model", "acme/tiny", MODEL)
        hub.push("dataset", "acme/text", DATA)
        yield hub


DEFINITE = {fault for fault in FAULTS if fault[0] == "4" and "429" not in fault} | {
    "429 for long",
    "wrong json",
    "circle",
    "corrupt",
}
"""What the hub says once, it is not asked again for."""


@pytest.fixture
def quick(monkeypatch, online):
    """With short pauses of the library between the parts of a file."""
    sleep = time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: sleep(min(seconds, 0.01)))
    yield online
    online.heal()


def wait_no_longer_than(monkeypatch, seconds):
    for name in ("HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT"):
        monkeypatch.setattr(constants, name, seconds)


def taken(kind, names, store):
    """These files of a repository, as they are on disk."""
    name = {"model": "acme/tiny", "dataset": "acme/text"}[kind]
    repository = resolve(kind, name, None, store, say=lambda line: None)
    folder = fetch(repository, names, store, say=lambda line: None)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


CASES = [
    (fault, place, times)
    for fault, place, times in itertools.product(FAULTS, PLACES, (None, 1))
    if not (place.startswith("large") and fault in IN_BODY)
    and not (times == 1 and place in ("config.json", "train.parquet"))
]


@pytest.mark.parametrize(("fault", "place", "times"), CASES)
def test_the_right_bytes_come_or_a_line(fault, place, times, quick, store, monkeypatch):
    kind, files = ("dataset", DATA) if place in DATA else ("model", MODEL)
    file = place.removeprefix("large ")
    right = {file: files[file]} if file in files else files
    if fault == "hang":
        # Where only the first request is left alone, others must be answered within the time.
        wait_no_longer_than(monkeypatch, 0.5 if times is None else 3.0)
    quick.fail(fault, on=place, times=times)
    try:
        assert taken(kind, right, store) == right
        # What a hub gives only once more is no refusal of it.
        assert times == 1 or fault in ("slow", "newest") or file not in files
    except HubRefusal as error:
        line = str(error)
        assert line.isprintable()
        assert re.match(r"(model acme/tiny|dataset acme/text)\b", line), line
        assert file in line or file not in files
        assert re.search(LINES.get(fault, f"no JSON|{OF_BYTES}"), line), line
        assert "hf_abc" not in line
        if place.startswith("large") and fault in ("429", "500", "503", "hang", "close"):
            assert "localhost" in line, line
        assert times is None or fault in DEFINITE, line
    quick.heal()
    wait_no_longer_than(monkeypatch, 60.0)
    assert taken(kind, right, store) == right
