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
from helpers.hub_server import HubServer
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


@pytest.fixture
def hub():
    with HubServer() as hub:
        yield hub


@pytest.fixture
def online(hub, monkeypatch, tmp_path):
    """Lets this process ask `hub`, with an empty cache and short waits."""
    from huggingface_hub import close_session, constants

    from mbench.storage.hub import client

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 5)
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 5)
    monkeypatch.setattr(client, "WAITS", (0.01, 0.01, 0.01))
    monkeypatch.setattr(client, "DEAD_FOR", 0.0)
    yield hub
    close_session()
