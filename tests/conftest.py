"""Nothing in the tests may reach a network, and no test sees another's store."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
# As in a process of mbench; whoever imports the libraries first has set it.
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
if "PYTEST_XDIST_WORKER" in os.environ:
    # There is a process for every core already.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

from helpers.browsing import browser, tab, written  # noqa: F401
from mbench.storage.store import Store


def pytest_collection_modifyitems(items):
    """Begin with the longest tests, so that no worker is left alone with one at the end."""
    items.sort(key=lambda item: "suites" not in item.path.parts)


@pytest.fixture(autouse=True)
def _own_store(tmp_path, monkeypatch):
    monkeypatch.setenv("MBENCH_STORE", str(tmp_path / "store"))


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "store")
