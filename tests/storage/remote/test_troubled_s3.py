"""A store behind a server that is busy, loses answers, or knows no conditions."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from urllib.parse import urlsplit

import fsspec.config
import numpy as np
import pytest

from helpers.held import LONG
from helpers.places import ROOT
from helpers.s3_server import BUCKET, s3_server
from helpers.stored_examples import PROFILE, STATISTIC
from helpers.troubled_s3 import troubled
from mbench.core.errors import StoreError
from mbench.storage.store import Key, Store

URL = f"s3://{BUCKET}/p"
MASK = Key.of("masks", "a mask", {"what": "a mask"})


@pytest.fixture
def s3(monkeypatch):
    with s3_server(monkeypatch) as server:
        yield server


@contextmanager
def store_behind(s3, monkeypatch, trouble, attempts=4):
    """A store of which requests go wrong."""
    with troubled(urlsplit(s3.url).port, trouble) as url:
        few = {"retries": {"max_attempts": attempts, "mode": "standard"}}
        settings = {"endpoint_url": url, "config_kwargs": few}
        monkeypatch.setitem(fsspec.config.conf, "s3", settings)
        yield Store(URL)


LARGE = """
import sys
import numpy as np
from helpers.stored_examples import PROFILE, STATISTIC
from mbench.storage.store import Store
sums = {"count": np.ones((1, 1, 14_000_000))}  # of 112 MB, which are sent in three parts
Store(sys.argv[1]).write_statistic(STATISTIC, PROFILE, sums, {})
"""


def test_a_file_of_which_parts_were_sent_when_its_writer_was_killed_is_made_again(
    s3, monkeypatch, tmp_path
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    arrived, over = threading.Event(), threading.Event()

    def hold_third_part(request):
        if "partNumber=3" in request.path:
            arrived.set()
            over.wait(LONG)
        return ""

    with troubled(urlsplit(s3.url).port, hold_third_part) as url:
        environment = {**os.environ, "FSSPEC_S3_ENDPOINT_URL": url, "PYTHONPATH": "tests"}
        writer = subprocess.Popen([sys.executable, "-c", LARGE, URL], env=environment, cwd=ROOT)
        assert arrived.wait(LONG)
        writer.kill()
        writer.wait()
        over.set()
    store, client = Store(URL), s3.client()
    assert not store.has_statistic(STATISTIC)
    assert store.entries("statistics") == []
    assert len(client.list_multipart_uploads(Bucket=BUCKET)["Uploads"]) == 1
    # Another store of the bucket has nothing to do with it. This server says that it is years old.
    Store(f"s3://{BUCKET}/another").sweep()
    assert len(client.list_multipart_uploads(Bucket=BUCKET)["Uploads"]) == 1
    store.sweep()
    assert "Uploads" not in client.list_multipart_uploads(Bucket=BUCKET)
    store.write_statistic(STATISTIC, PROFILE, {"count": np.ones((1, 1, 2))}, {})
    assert Store(URL).read_sums(STATISTIC)["count"].sum() == 2


def conditional(request):
    return request.command == "PUT" and "If-None-Match" in request.headers


def test_a_busy_server_is_asked_again_and_one_that_stays_busy_is_one_line(s3, monkeypatch):
    numbers = itertools.count()

    def busy_half_the_time(request):
        return "slow down" * (next(numbers) % 2) if request.command == "PUT" else ""

    with store_behind(s3, monkeypatch, busy_half_the_time) as store:
        store.write_json(MASK, {"keep": [1]})
        claim = store.claim("work")
        assert store.claim("work") is None
        claim.release()
        assert Store(URL).read_json(MASK) == {"keep": [1]}
    with (
        pytest.raises(StoreError, match=f"cannot read {URL}: Service Unavailable"),
        store_behind(s3, monkeypatch, lambda _: "slow down", attempts=1),
    ):
        pass


def test_what_was_written_though_its_answer_was_lost_is_written(s3, monkeypatch):
    asked = set()

    def lose_first_answers(request):
        if not conditional(request) or request.path in asked:
            return ""
        asked.add(request.path)
        return "lost"

    with store_behind(s3, monkeypatch, lose_first_answers) as store:
        claim = store.claim("work")
        assert claim is not None
        assert claim.renew()
        assert Store(URL).claim("work") is None
        claim.release()
        assert store.write_json(MASK, {"keep": [1]}) == {"keep": [1]}
        folders = {path.split("/")[3] for path in asked}
        assert folders == {"unfinished", "claims", "masks"}
        assert Store(URL).read_json(MASK) == {"keep": [1]}


@pytest.mark.parametrize("answer", ["ignored", "not implemented"])
def test_a_server_without_conditions_stores_but_is_not_shared(s3, monkeypatch, answer):
    def unconditional(request):
        return answer if conditional(request) else ""

    with store_behind(s3, monkeypatch, unconditional) as store:
        store.write_json(MASK, {"keep": [1]})
        assert Store(URL).read_json(MASK) == {"keep": [1]}
        with pytest.raises(StoreError, match=f"{URL} cannot be shared by several processes"):
            store.claim("work")
