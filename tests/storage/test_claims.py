"""FileClaims, as processes that race for them and are killed see them."""

from __future__ import annotations

import os
import signal
import time

import pytest

from helpers.claim_racers import owners, racers
from mbench.storage.claims import FileClaims


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


def test_a_claim_of_another_machine_is_taken_over_when_its_lease_is_over(tmp_path):
    claims = FileClaims(tmp_path)
    claim = claims.take("work", lease=30)
    (path,) = tmp_path.iterdir()
    path.write_text(path.read_text().replace('"machine": "', '"machine": "another '))
    os.utime(path, (time.time() - 29, time.time() - 29))
    assert claims.take("work") is None
    os.utime(path, (time.time() - 31, time.time() - 31))
    taken = claims.take("work")
    assert taken is not None
    # The one that was away finds out, and gives nothing back that is not its own.
    assert not claim.renew()
    assert claim.lost
    claim.release()
    assert claims.take("work") is None
    taken.release()


def test_a_claim_from_before_a_clock_was_set_back_does_not_stay(tmp_path):
    claims = FileClaims(tmp_path)
    claims.take("work")
    (path,) = tmp_path.iterdir()
    path.write_text(path.read_text().replace('"machine": "', '"machine": "another '))
    os.utime(path, (time.time() + 30, time.time() + 30))
    assert claims.take("work") is None
    os.utime(path, (time.time() + 3600, time.time() + 3600))
    assert claims.take("work") is not None


def test_a_kept_claim_outlives_its_lease(tmp_path):
    claims = FileClaims(tmp_path)
    claim = claims.take("work", lease=0.3)
    with claim.kept():
        (path,) = (each for each in tmp_path.iterdir() if each.suffix == ".claim")
        path.write_text(path.read_text().replace('"machine": "', '"machine": "another '))
        until = time.monotonic() + 1
        while time.monotonic() < until:
            assert claims.take("work") is None
            time.sleep(0.05)
    assert not path.exists()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"lease": "x"}'])
def test_a_claim_that_cannot_be_read_has_its_lease_too(tmp_path, content):
    claims = FileClaims(tmp_path)
    claims.take("work")
    (path,) = tmp_path.iterdir()
    path.write_bytes(content)
    assert claims.take("work") is None
    os.utime(path, (time.time() - 61, time.time() - 61))
    assert claims.take("work") is not None


def test_of_many_that_race_never_two_have_the_same_piece(tmp_path):
    log = tmp_path / "log"
    for racer in racers(str(tmp_path), log, rounds=60, count=4):
        assert racer.wait(60) == 0
    held, ended = owners(log)
    assert not held
    assert sum(ended.values()) > 100
    assert len(ended) > 1


def test_the_claims_of_a_killed_process_are_free_at_once(tmp_path):
    log = tmp_path / "log"
    (racer,) = racers(str(tmp_path), log, rounds=10**6, count=1)
    until = time.monotonic() + 30
    while time.monotonic() < until and not (log.exists() and log.stat().st_size > 200):
        time.sleep(0.01)
    racer.send_signal(signal.SIGKILL)
    racer.wait()
    claims = FileClaims(tmp_path / "claims")
    for piece in range(3):
        claim = claims.take(f"piece {piece}", lease=5)
        assert claim is not None
        claim.release()
