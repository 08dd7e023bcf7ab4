"""The libraries ask a hub on the loopback interface, and do not wait long."""

from __future__ import annotations

import pytest
from huggingface_hub import close_session, constants

from mbench.storage.hub import client


@pytest.fixture
def online(hub, monkeypatch, tmp_path):
    """Lets this process ask `hub`, with an empty cache."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.2)
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.2)
    monkeypatch.setattr(client, "WAITS", (0.01, 0.01, 0.01))
    yield hub
    close_session()
