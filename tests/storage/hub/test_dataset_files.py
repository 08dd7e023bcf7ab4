"""Datasets read from fetched files are what the datasets library itself loads from the hub."""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import sys
import tempfile

import datasets
import pyarrow
import pyarrow.parquet
import pytest
from huggingface_hub import constants

from helpers.hub_server import HubServer
from helpers.places import ROOT
from mbench.storage.hub.answers import HubRefusal
from mbench.storage.hub.dataset_files import batches, dataset_files, open_dataset
from mbench.storage.hub.fetch import fetch
from mbench.storage.hub.repository import resolve

DECLARED = """---
configs:
- config_name: english
  data_files:
  - {split: train, path: "en/train-*.parquet"}
  - {split: test, path: en/test.parquet}
- config_name: french
  data_files: [{split: train, path: "fr/*.parquet"}]
dataset_info:
- config_name: english
  features:
  - {name: text, dtype: string}
  - name: label
    dtype:
      class_label:
        names: {'0': bad, '1': good}
---
# Reviews
"""

TABBED = """---
configs:
- config_name: default
  data_files: "*.tsv"
  sep: "\\t"
---
"""


def parquet(rows):
    out = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), out)
    return out.getvalue()


def lines(rows):
    return "".join(f"{json.dumps(row)}\n" for row in rows).encode()


def reviews(name, count, shift=0):
    return [{"text": f"{name} {n}\u2028 é", "label": (n + shift) % 2} for n in range(count)]


REPOSITORIES = {
    "acme/reviews": {
        "README.md": DECLARED.encode(),
        "en/train-00001.parquet": parquet(reviews("second", 3)),
        "en/train-00000.parquet": parquet(reviews("first", 4)),
        "en/test.parquet": parquet(reviews("test", 2, 1)),
        "fr/a.parquet": parquet(reviews("un", 3)),
    },
    "acme/lines": {
        "train.jsonl.gz": gzip.compress(lines([{"text": f"a {n}", "n": n} for n in range(5)])),
        "validation.jsonl": lines([{"text": None, "n": 1}, {"text": "b", "n": 2}]),
    },
    "acme/tabbed": {"README.md": TABBED.encode(), "a.tsv": b"text\tn\none, two\t1\nthree\t2\n"},
    "acme/plain": {
        "data/train/one.txt": b"first line\nsecond line\n",
        "data/train/two.txt": b"third line\n",
        "notes.md": b"# no data",
    },
    "acme/nested": {"all.json": json.dumps({"data": [{"text": "x"}, {"text": "y"}]}).encode()},
}
CASES = [
    ("acme/reviews", "english", "train", {}),
    ("acme/reviews", "english", "test", {}),
    ("acme/reviews", "french", "train", {}),
    ("acme/reviews", "english", "train[1:3]+test", {}),
    ("acme/reviews", None, "train", {"data_files": "fr/*.parquet"}),
    ("acme/reviews", None, "other", {"data_files": {"other": ["en/test.parquet"]}}),
    ("acme/lines", None, "train", {}),
    ("acme/lines", None, "validation", {}),
    ("acme/tabbed", None, "train", {}),
    ("acme/plain", None, "train", {}),
    ("acme/plain", None, "train", {"data_dir": "data"}),
    ("acme/plain", None, "train", {"sample_by": "document"}),
    ("acme/nested", None, "train", {"field": "data"}),
]
LOADED_BY_THE_LIBRARY = """
import datasets, json, sys
datasets.config.USE_PARQUET_EXPORT = datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False
for name, subset, split, arguments in json.loads(sys.argv[1]):
    loaded = datasets.load_dataset(name, subset, split=split, **arguments)
    print(json.dumps([repr(loaded.features), list(loaded)]))
"""


@pytest.fixture(scope="module")
def hub():
    with HubServer() as hub:
        for name, files in REPOSITORIES.items():
            hub.push("dataset", name, files)
        yield hub


@pytest.fixture(scope="module")
def loaded(hub, tmp_path_factory):
    """What the library loads for each case, in a process of its own that may ask the hub."""
    offline = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")
    environment = {name: value for name, value in os.environ.items() if name not in offline}
    environment |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path_factory.mktemp("home"))}
    command = [sys.executable, "-c", LOADED_BY_THE_LIBRARY, json.dumps(CASES)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in run.stdout.splitlines()]


def fetched(name, subset, split, arguments, store):
    named = {key: arguments[key] for key in ("data_files", "data_dir") if key in arguments}
    options = {key: value for key, value in arguments.items() if key not in named}
    repository = resolve("dataset", name, None, store, say=print)
    found = dataset_files(repository, subset, store, **named, options=options, say=print)
    return fetch(repository, found.names(split), store, say=print), found, split


@pytest.mark.parametrize("number", range(len(CASES)))
def test_rows_and_columns_are_those_of_the_library(number, loaded, online, store):
    features, rows = loaded[number]
    there = fetched(*CASES[number], store)
    found = open_dataset(*there)
    assert (repr(found.features), list(found)) == (features, rows)
    by_column = [batch for batch in batches(*there)]
    assert [
        dict(zip(batch, values, strict=True))
        for batch in by_column
        for values in zip(*batch.values(), strict=True)
    ] == rows


def readme(text):
    return f"---\n{text}\n---\n".encode()


def only(data_files):
    return readme(f"configs: [{{config_name: default, data_files: {json.dumps(data_files)}}}]")


DEMO = ROOT / "plugins" / "demo" / "model" / "config.json"
SUBSETS = DECLARED.split("dataset_info")[0].encode() + b"---\n"
SEVERAL = {**REPOSITORIES["acme/reviews"], "README.md": SUBSETS}
ROWS = lines([{"text": "x"}])
BAD = {
    "a subset that is not there": (
        REPOSITORIES["acme/reviews"],
        {"subset": "germen"},
        r"unknown subset 'germen'.* \(valid: english, french\)",
    ),
    "no subset": (SEVERAL, {}, "name one of its subsets: english, french"),
    "a script": ({"bad.py": b"import os"}, {}, r"a script, bad.py, .*refs/convert/parquet"),
    "nothing": ({}, {}, "no files of a kind that can be read"),
    "no data": ({"README.md": b"# none", "x.bin": b""}, {}, "no files of a kind"),
    "no such file": ({"a.json": ROWS}, {"data_files": "b.json"}, r"has no file 'b\.json'"),
    "a broken README": ({"README.md": readme("a: ["), "a.json": ROWS}, {}, "README.md cannot be"),
    "a README with a number": ({"README.md": readme("configs: 3"), "a.json": ROWS}, {}, "a list"),
    "pictures": ({"a.png": b"", "b.png": b""}, {}, "read as 'imagefolder', which is no text"),
    "an archive": ({"a.zip": b""}, {}, "in an archive, which is not read"),
    "an option that is none": ({"a.json": ROWS}, {"options": {"fjeld": 1}}, "no option 'fjeld'"),
    "a file elsewhere": ({"README.md": only("https://evil/x.json"), "a.json": ROWS}, {}, "outside"),
    "a file above": ({"README.md": only("../../../*.json"), "a.json": ROWS}, {}, "no files"),
    "a file of the system": ({"README.md": only(str(DEMO)), "a.json": ROWS}, {}, "outside"),
    "a file in an archive": ({"a.json": ROWS}, {"data_files": "zip://*.json::a.zip"}, "outside"),
    "another's file": ({"a.json": ROWS}, {"data_files": "hf://datasets/acme/plain/*"}, "outside"),
    "a name that leads out": ({"../a.json": ROWS}, {}, "leads out of its folder"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_read_is_one_line(case, hub, online, store):
    files, arguments, message = BAD[case]
    hub.push("dataset", "acme/bad", files)
    repository = resolve("dataset", "acme/bad", None, store, say=print)
    subset = arguments.get("subset")
    rest = {name: value for name, value in arguments.items() if name != "subset"}
    with pytest.raises(HubRefusal, match=message) as caught:
        dataset_files(repository, subset, store, **rest, say=print)
    assert str(caught.value).startswith("dataset acme/bad")
    assert str(caught.value).isprintable()
    assert "/tmp/tmp" not in str(caught.value)


DAMAGED = {
    "no parquet": ({"a.parquet": b"PAR1 and no more"}, r"file a.parquet: .*[Pp]arquet"),
    "no lines": ({"a.jsonl": b'{"text": "x"}\n{"text": \n'}, r"file a.jsonl: .*JSON"),
    "no gzip": ({"a.jsonl.gz": b"plain"}, r"file a.jsonl.gz: .*gzip"),
    "no UTF-8": ({"a.txt": b"\xff\xfe\xfa"}, r"file a.txt: .*utf-8"),
    "columns that are not as declared": (
        {
            "README.md": readme("dataset_info: {features: [{name: text, dtype: int64}]}"),
            "a.jsonl": ROWS,
        },
        r"file a.jsonl: .*int64",
    ),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_files_that_are_no_data_are_one_line(case, hub, online, store):
    files, message = DAMAGED[case]
    hub.push("dataset", "acme/damaged", files)
    there = fetched("acme/damaged", None, "train", {}, store)
    for open_it in (open_dataset, lambda *where: list(batches(*where))):
        with pytest.raises(HubRefusal, match=message) as caught:
            open_it(*there)
    assert str(caught.value).isprintable()
    assert "/tmp/tmp" not in str(caught.value)


def test_a_split_that_is_not_there_is_one_line(online, store):
    for split in ("valid", "train+valid[:10]"):
        with pytest.raises(
            HubRefusal, match=r"unknown split 'valid'.*\(valid: train, validation\)"
        ):
            fetched("acme/lines", None, split, {}, store)


def test_a_part_of_a_split_is_asked_for_as_in_the_library(online, store):
    for split in ("train[", "train[1:2:3]", "train[x:]"):
        with pytest.raises(HubRefusal) as caught:
            open_dataset(*fetched("acme/lines", None, split, {}, store))
        assert str(caught.value).isprintable()


def test_a_text_is_read_as_far_as_needed(hub, online, store):
    hub.push("dataset", "acme/long", {"a.jsonl": ROWS * 3000, "b.jsonl": b"no JSON"})
    there = fetched("acme/long", None, "train", {}, store)
    rows = batches(*there)
    assert [len(next(rows)["text"]) for _ in range(3)] == [1000] * 3
    with pytest.raises(HubRefusal, match=r"file b.jsonl: "):
        next(rows)


def test_only_what_is_needed_is_fetched_and_nothing_else_stays(
    hub, online, store, tmp_path, monkeypatch
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    test = ("acme/reviews", "english", "test", {})
    hub.requests.clear()
    assert len(open_dataset(*fetched(*test, store))) == 2
    names = {path.split("/")[-1] for method, path, _ in hub.requests if "resolve" in path}
    assert names == {"README.md", "test.parquet"}
    assert not list((tmp_path / "temporary").iterdir())
    assert not (tmp_path / "datasets").exists()
    hub.requests.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert len(open_dataset(*fetched(*test, store))) == 2
    assert hub.requests == []
