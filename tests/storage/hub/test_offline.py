"""After everything was fetched, the real libraries load it from disk and ask nobody."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from helpers.hub_server import HubServer
from helpers.places import ROOT

DEMO = ROOT / "plugins" / "demo" / "model"
TEXT = b'{"text": "one"}\n{"text": "two"}\n'
SCRIPT = """
import json, os, subprocess, sys
from pathlib import Path
import datasets, transformers
from huggingface_hub import HfApi
from mbench.storage.hub.dataset_files import dataset_files, open_dataset
from mbench.storage.hub.fetch import fetch
from mbench.storage.hub.offline import offline
from mbench.storage.hub.repository import resolve
from mbench.storage.store import Store

place, store = Path(sys.argv[1]), Store(Path(sys.argv[2]))
model = resolve("model", "acme/tiny", None, store, say=print)
folder = fetch(model, [file.name for file in model.files], store, say=print)
text = resolve("dataset", "acme/text", None, store, say=print)
files = dataset_files(text, None, store, say=print)
rows = fetch(text, files.names("train"), store, say=print)
offline()
print("OFFLINE", file=sys.stderr, flush=True)
sys.stdin.readline()

def refused(ask):
    try:
        ask()
    except Exception as error:
        return type(error).__name__

def config(place):
    found = transformers.AutoConfig.from_pretrained(place).to_dict()
    return {name: value for name, value in found.items() if name != "_name_or_path"}

child = "from huggingface_hub import constants; print(constants.HF_HUB_OFFLINE)"
load = transformers.AutoTokenizer.from_pretrained
sentence = "In the beginning was the word."
print(json.dumps({
    "config": config(folder) == config(place),
    "tokens": load(folder)(sentence)["input_ids"] == load(place)(sentence)["input_ids"],
    "rows": list(open_dataset(rows, files, "train")["text"]),
    "client": refused(lambda: HfApi().model_info("acme/tiny")),
    "transformers": refused(lambda: transformers.AutoConfig.from_pretrained("acme/other")),
    "datasets": refused(lambda: datasets.load_dataset("acme/other")),
    "child": subprocess.run([sys.executable, "-c", child], capture_output=True, text=True).stdout,
}))
"""


def test_the_libraries_load_what_was_fetched_and_ask_nobody(tmp_path):
    offline = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")
    environment = {name: value for name, value in os.environ.items() if name not in offline}
    with HubServer() as hub:
        hub.push("model", "acme/tiny", DEMO)
        hub.push("dataset", "acme/text", {"train.jsonl": TEXT})
        environment |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home")}
        process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(DEMO), str(tmp_path / "store")],
            env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )  # fmt: skip
        assert process.stderr is not None
        for line in process.stderr:
            if line.strip() == "OFFLINE":
                break
        hub.requests.clear()
        out, err = process.communicate("\n")
        assert process.returncode == 0, err
        assert hub.requests == []
    found = json.loads(out)
    assert found.pop("rows") == ["one", "two"]
    assert found == {
        "config": True,
        "tokens": True,
        "client": "OfflineModeIsEnabled",
        "transformers": "OSError",
        "datasets": "ConnectionError",
        "child": "True\n",
    }
