"""Datasets read from fetched files are what the datasets library itself loads from the hub."""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import sys

import pyarrow
import pyarrow.parquet
import pytest

from helpers.hub_server import HubServer
from mbench.storage.hub.dataset_files import dataset_files, open_dataset
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
    # As a stream first: later its columns would be those of the cache.
    loaded = []
    if "[" not in split:
        loaded.append(datasets.load_dataset(name, subset, split=split, streaming=True, **arguments))
    loaded.append(datasets.load_dataset(name, subset, split=split, **arguments))
    print(json.dumps([[repr(each.features), list(each)] for each in loaded]))
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
    offline = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")
    environment = {name: value for name, value in os.environ.items() if name not in offline}
    environment |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path_factory.mktemp("home"))}
    command = [sys.executable, "-c", LOADED_BY_THE_LIBRARY, json.dumps(CASES)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in run.stdout.splitlines()]


def read(name, subset, split, arguments, store, streaming=False):
    named = {key: arguments[key] for key in ("data_files", "data_dir") if key in arguments}
    options = {key: value for key, value in arguments.items() if key not in named}
    repository = resolve("dataset", name, None, store, say=print)
    found = dataset_files(repository, subset, store, **named, options=options, say=print)
    folder = fetch(repository, found.names(split), store, say=print)
    return open_dataset(folder, found, split, streaming=streaming)


@pytest.mark.parametrize("number", range(len(CASES)))
def test_rows_and_columns_are_those_of_the_library(number, loaded, online, store):
    name, subset, split, arguments = CASES[number]
    for streaming, expected in zip((False, True), reversed(loaded[number]), strict=False):
        found = read(name, subset, split, arguments, store, streaming)
        assert [repr(found.features), list(found)] == expected
