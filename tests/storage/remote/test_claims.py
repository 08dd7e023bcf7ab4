"""Claims in object storage, as processes that race for them, are killed or fall asleep see them."""

from __future__ import annotations

import json
import time
from datetime import datetime, timedelta

import pytest

from helpers import plain_places
from helpers.claim_racers import kill_in_work, owners, racers
from helpers.held import LONG
from helpers.s3_server import BUCKET, s3_server
from mbench.core.errors import StoreError
from mbench.storage.remote.claims import TICK
from mbench.storage.store import Store

URL = f"s3://{BUCKET}/p"


@pytest.fixture(autouse=True)
def s3(monkeypatch):
    with s3_server(monkeypatch) as server:
        yield server


def claims(s3) -> list[str]:
    listed = s3.client().list_objects_v2(Bucket=BUCKET, Prefix="p/claims/")
    return [each["Key"] for each in listed.get("Contents", [])]


def written(s3) -> datetime:
    """When the only claim was written last."""
    (found,) = s3.client().list_objects_v2(Bucket=BUCKET, Prefix="p/claims/")["Contents"]
    return found["LastModified"]


def given_to_another_machine(s3) -> None:
    """Whoever has the only claim is no process of this machine any more."""
    (key,) = claims(s3)
    client = s3.client()
    claim = json.loads(client.get_object(Bucket=BUCKET, Key=key)["Body"].read())
    body = json.dumps({**claim, "machine": "another"}).encode()
    client.put_object(Bucket=BUCKET, Key=key, Body=body)


def test_one_of_two_has_a_claim_until_it_gives_it_back(s3):
    first, second = Store(URL), Store(URL)
    claim = first.claim("work")
    assert claim is not None
    assert second.claim("work") is None
    other = second.claim("other work")
    assert other is not None
    assert claim.renew()
    claim.release()
    other.release()
    again = second.claim("work")
    assert again is not None
    again.release()
    assert claims(s3) == []


def test_a_claim_of_another_machine_is_taken_over_when_its_lease_is_over(s3):
    store = Store(URL)
    claim = store.claim("work", lease=2)
    assert claim is not None
    start = time.monotonic()
    given_to_another_machine(s3)
    while (taken := Store(URL).claim("work", lease=2)) is None:
        assert time.monotonic() - start < LONG
        time.sleep(0.1)
    assert time.monotonic() - start > 1
    assert store.claim("work") is None
    taken.release()
    assert claims(s3) == []
    # The one that was away finds out, though a third one's claim is named as its own was, and
    # gives nothing back that is not its own.
    third = store.claim("work")
    assert not claim.renew()
    assert claim.lost
    claim.release()
    assert third.renew()
    assert len(claims(s3)) == 1


def test_a_kept_claim_outlives_its_lease_also_while_the_server_is_away(s3):
    store = Store(URL)
    claim = store.claim("work", lease=4)
    assert claim is not None
    with claim.kept():
        made, until = written(s3), time.monotonic() + LONG
        s3.stop()
        time.sleep(1)
        s3.start()
        while written(s3) - made <= timedelta(seconds=4 + TICK):
            assert time.monotonic() < until
            time.sleep(0.1)
        assert store.claim("work") is None
    assert claims(s3) == []
    assert not claim.lost


def test_of_many_that_race_never_two_have_the_same_piece(s3, tmp_path):
    log = tmp_path / "log"
    for racer in racers(URL, log, rounds=10, count=3):
        assert racer.wait(LONG) == 0
    held, ended = owners(log)
    assert not held
    assert sum(ended.values()) > 25
    assert len(ended) > 1
    assert claims(s3) == []


def test_the_claims_of_killed_processes_are_taken_over(s3, tmp_path):
    log = tmp_path / "log"
    (racer,) = racers(URL, log, rounds=10**6, count=1)
    kill_in_work(racer, log)
    store = Store(URL)
    for piece in range(3):
        claim = store.claim(f"piece {piece}", lease=5)
        assert claim is not None
        claim.release()


def test_a_place_that_lets_two_create_the_same_is_refused_by_name():
    plain_places.register()
    store = Store("plain://place")
    with pytest.raises(StoreError, match=r"plain://place cannot be shared by several processes"):
        store.claim("work")
