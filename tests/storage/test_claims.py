"""FileClaims, as processes that race for them and are killed see them."""

from __future__ import annotations

import os
import resource
import time

import pytest

from helpers.claim_racers import kill_in_work, owners, racers
from helpers.held import LONG
from mbench.core.errors import StoreError
from mbench.storage.claims import TOUCHES, FileClaims
from mbench.storage.store import Store


def test_one_of_two_has_a_claim_until_it_gives_it_back(tmp_path):
    first, second = FileClaims(tmp_path / "claims"), FileClaims(tmp_path / "claims")
    claim = first.take("work")
    assert claim is not None
    assert second.take("work") is None
    other = second.take("other work")
    assert other is not None
    claim.release()
    other.release()
    again = second.take("work")
    assert again is not None
    again.release()
    assert not list((tmp_path / "claims").iterdir())


def given_to_another_machine(path):
    path.write_text(path.read_text().replace('"machine": "', '"machine": "another '))


def taken_in_time(claims, touched, least):
    """A claim that nobody touches any more, which takes so many seconds since before it was."""
    while (taken := claims.take("work")) is None:
        assert time.monotonic() - touched < LONG
        time.sleep(0.02)
    assert time.monotonic() - touched >= least
    return taken


def wait_for_touch(path):
    before, until = path.stat().st_mtime_ns, time.monotonic() + LONG
    while path.stat().st_mtime_ns == before:
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_claim_of_another_machine_is_taken_over_when_its_lease_is_over(tmp_path):
    claims = FileClaims(tmp_path)
    claim = claims.take("work", lease=1)
    (path,) = tmp_path.iterdir()
    touched = time.monotonic()
    given_to_another_machine(path)
    assert claims.take("work") is None
    taken = taken_in_time(claims, touched, least=0.5)
    # The one that was away finds out, and gives nothing back that is not its own.
    assert not claim.renew()
    assert claim.lost
    claim.release()
    assert claims.take("work") is None
    taken.release()


@pytest.mark.parametrize("ahead", [3600, -3600])
def test_where_a_clock_is_an_hour_off_the_living_keep_their_claims_and_the_dead_do_not(
    tmp_path, ahead
):
    claims = FileClaims(tmp_path)
    claims.take("work", lease=0.6)
    (path,) = tmp_path.iterdir()
    given_to_another_machine(path)
    for _ in range(15):  # on some file systems it is the clock of whoever touches a file
        touched = time.monotonic()
        os.utime(path, (time.time() + ahead, time.time() + ahead))
        assert claims.take("work") is None
        time.sleep(0.1)
    taken_in_time(claims, touched, least=0.3)


def test_a_kept_claim_outlives_its_lease(tmp_path):
    claims = FileClaims(tmp_path)
    claim = claims.take("work", lease=1)
    with claim.kept():
        (path,) = (each for each in tmp_path.iterdir() if each.suffix == ".claim")
        given_to_another_machine(path)
        for _ in range(2 * TOUCHES):
            assert claims.take("work") is None
            wait_for_touch(path)
        assert claims.take("work") is None
    assert not path.exists()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"lease": "x"}'])
def test_a_claim_that_cannot_be_read_has_its_lease_too(tmp_path, monkeypatch, content):
    claims = FileClaims(tmp_path)
    claims.take("work")
    (path,) = tmp_path.iterdir()
    path.write_bytes(content)
    assert claims.take("work") is None
    os.utime(path, (time.time() - 61, time.time() - 61))
    assert claims.take("work") is None
    later = time.monotonic() + 31
    monkeypatch.setattr("time.monotonic", lambda: later)
    assert claims.take("work") is not None


def test_of_many_that_race_never_two_have_the_same_piece(tmp_path):
    log = tmp_path / "log"
    for racer in racers(str(tmp_path), log, rounds=60, count=4):
        assert racer.wait(LONG) == 0
    held, ended = owners(log)
    assert not held
    assert sum(ended.values()) > 100
    assert len(ended) > 1


def test_the_claims_of_a_killed_process_are_free_at_once(tmp_path):
    log = tmp_path / "log"
    (racer,) = racers(str(tmp_path), log, rounds=10**6, count=1)
    kill_in_work(racer, log)
    claims = FileClaims(tmp_path / "claims")
    for piece in range(3):
        claim = claims.take(f"piece {piece}", lease=5)
        assert claim is not None
        claim.release()


def test_on_a_full_disk_nothing_is_claimed_and_nothing_stays(tmp_path):
    claims = FileClaims(tmp_path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for room in (0, 10):  # bytes
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
        try:
            with pytest.raises(StoreError, match="cannot claim work in"):
                claims.take("work")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert not list(tmp_path.iterdir())
    assert claims.take("work") is not None


def test_what_the_dead_claimed_with_all_work_done_goes_after_a_week(tmp_path):
    store = Store(tmp_path)
    claimed = [store.claim(work) for work in ("one", "other")]
    week_ago = time.time() - 8 * 24 * 3600
    old, new = (tmp_path / "claims").iterdir()
    os.utime(old, (week_ago, week_ago))
    store.sweep()
    assert list((tmp_path / "claims").iterdir()) == [new]
    for each in claimed:
        each.release()
