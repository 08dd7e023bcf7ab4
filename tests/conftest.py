"""Nothing in the tests may reach a network, and no test sees another's store."""

from __future__ import annotations

import os
import random
import sys

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
# As in a process of mbench; whoever imports the libraries first has set it.
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Where a test has named no store, none can be: that of whoever runs the tests would be full later.
os.environ["MBENCH_STORE"] = os.path.join(os.devnull, "no store was named")
# Nor is a test one of the jobs or clusters that they are run in.
os.environ.pop("RAY_ADDRESS", None)
os.environ.pop("SLURM_ARRAY_TASK_ID", None)
os.environ.pop("SLURM_ARRAY_TASK_COUNT", None)
os.environ.pop("SLURM_ARRAY_TASK_MIN", None)
os.environ.pop("SLURM_ARRAY_TASK_STEP", None)
# Nor has it the terminal that somebody reads them on.
os.environ.pop("COLUMNS", None)
os.environ.pop("LINES", None)
# Servers that tests start are on this machine, which a proxy does not reach; they have no accounts.
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "*"
os.environ.pop("AWS_PROFILE", None)
os.environ.pop("AWS_DEFAULT_PROFILE", None)
if "PYTEST_XDIST_WORKER" in os.environ:
    # There is a process for every core already.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import HealthCheck, settings

from helpers.browsing import browser, tab, written  # noqa: F401
from helpers.hub_server import HubServer
from mbench.storage.store import Store

# No example may take too long for a busy machine, and all runs have the same ones, so that no
# change fails by one that is drawn; `--hypothesis-profile=random` draws others.
settings.register_profile(
    "same", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("random", settings.get_profile("same"), derandomize=False)
settings.load_profile("same")


def pytest_xdist_auto_num_workers():
    """One more than there are cores: a third of the time, servers, signals, leases are awaited."""
    return len(os.sched_getaffinity(0)) + 1


def pytest_collection_modifyitems(items):
    """Begin with the longest tests, so that no worker is left alone with one at the end."""
    items.sort(key=lambda item: not {"suites", "testing"}.intersection(item.path.parts))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup():
    """What a test draws is the same whichever tests its process had before."""
    random.seed(0)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(autouse=True)
def _own_store(tmp_path, monkeypatch):
    monkeypatch.setenv("MBENCH_STORE", str(tmp_path / "store"))


@pytest.fixture(scope="module")
def one_thread():
    """As in the processes that tests start: sums depend on the number of threads."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


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
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 60)
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 60)
    monkeypatch.setattr(client, "WAITS", (0.01, 0.01, 0.01))
    monkeypatch.setattr(client, "DEAD_FOR", 0.0)
    yield hub
    close_session()
