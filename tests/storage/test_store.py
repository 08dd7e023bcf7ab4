"""Artefacts are whole or absent, verified when read, and their keys depend on content alone."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pyarrow.parquet
import pytest

from helpers.damage import flip
from helpers.stored_examples import (
    ITEMS,
    MASK,
    OUTCOMES,
    PROFILE,
    SAMPLES,
    STATISTIC,
    SUMS,
    content,
    fill,
)
from mbench.core.errors import Damaged, StoreError
from mbench.core.interfaces import ExpertMask
from mbench.storage.artefacts import verify
from mbench.storage.atomic import (
    AlreadyThere,
    new_folder,
    scratch_folder,
    sweep,
    write_atomically,
    write_new,
)
from mbench.storage.store import Key, Store


@pytest.fixture
def filled(tmp_path) -> Store:
    """A store with one artefact of each form."""
    store = Store(tmp_path / "filled")
    fill(store)
    return store


def test_keys_are_pinned():
    # A change here would orphan every artefact in every user's store.
    parts = {"kind": "mask", "b": [1, 2.5, None, "é"], "a": {"y": True, "x": 0}}
    reordered = {"a": {"x": 0, "y": True}, "b": [1, 2.5, None, "é"], "kind": "mask"}
    expected = "daac845d76ae"
    assert Key.of("masks", "one", parts) == Key.of("masks", "other label", reordered)
    assert Key.of("masks", "one", parts).digest.startswith(expected)
    keep = np.array([[True, False, True], [False, True, True]])
    assert ExpertMask(keep, ("a note",)).content_hash == ExpertMask(keep).content_hash
    assert ExpertMask(keep).content_hash.startswith("df9ad036c011")
    assert ExpertMask(keep[:, ::-1]).content_hash != ExpertMask(keep).content_hash


def test_a_failed_write_leaves_nothing_behind(tmp_path):
    target = tmp_path / "deep" / "file.txt"

    def fill_the_disk(path):
        path.write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(StoreError, match=r"cannot write .*file.txt: No space left on device"):
        write_atomically(target, fill_the_disk)
    assert list(target.parent.iterdir()) == []
    write_atomically(target, lambda path: path.write_text("old"))
    with pytest.raises(StoreError):
        write_atomically(target, fill_the_disk)
    assert target.read_text() == "old"
    assert [path.name for path in target.parent.iterdir()] == ["file.txt"]


def test_what_is_new_takes_no_name_that_is_taken(tmp_path):
    write_new(tmp_path / "file", b"first")
    with pytest.raises(AlreadyThere):
        write_new(tmp_path / "file", b"second")
    for name in ("file", "folder"):
        (tmp_path / "folder").mkdir(exist_ok=True)
        (tmp_path / "folder" / "mine").write_text("first")
        with pytest.raises(AlreadyThere), new_folder(tmp_path / name) as folder:
            (folder / "mine").write_text("second")
    assert (tmp_path / "file").read_text() == "first"
    assert (tmp_path / "folder" / "mine").read_text() == "first"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_artefacts_stay_files_that_other_programs_read(filled):
    assert json.loads(filled.path(MASK).read_text())["content"] == {"a": 1}
    pd.testing.assert_frame_equal(pd.read_parquet(filled.path(ITEMS)), OUTCOMES)


def test_every_single_flipped_bit_is_noticed(filled):
    flipped = 0
    for key in (MASK, ITEMS, STATISTIC):
        place = filled.path(key)
        for file in sorted(place.iterdir()) if place.is_dir() else [place]:
            # Every fifth bit: all bytes but a few, and all places within a byte.
            for bit in range(0, 8 * file.stat().st_size, 5):
                flip(file, bit)
                with pytest.raises(Damaged):
                    verify(key.kind, place, key.digest)
                flip(file, bit)
                flipped += 1
        assert verify(key.kind, place, key.digest) == key.record()
    assert flipped > 5000


def test_damaged_artefacts_are_named_and_set_aside_once(filled):
    for key in (MASK, ITEMS):
        data = filled.path(key).read_bytes()
        filled.path(key).write_bytes(data[: len(data) // 2])
    (filled.path(STATISTIC) / "layer-002.safetensors").unlink()
    reports: list[str] = []
    filled.listen(reports.append)
    assert content(filled) == {"mask": None, "items": None, "profile": None}
    assert content(filled) == {"mask": None, "items": None, "profile": None}
    named = ("mask 'a mask'", "evaluation 'an evaluation'", "statistic 'a statistic'")
    for report, name in zip(sorted(reports), sorted(named), strict=True):
        assert name in report
        assert "damaged" in report
        assert (filled.root / report.split(" as ")[-1]).exists()
    assert not any(filled.path(key).exists() for key in (MASK, ITEMS, STATISTIC))


def replace_by_folder(path):
    path.unlink()
    path.mkdir()


def replace_by_pipe(path):
    path.unlink()
    os.mkfifo(path)


def replace_by_loop(path):
    path.unlink()
    path.symlink_to(path)


def replace_by_nothing(path):
    path.unlink()
    path.symlink_to(path.parent / "gone")


def replace_by_device(path):
    path.unlink()
    path.symlink_to("/dev/zero")


STRANGE = {
    "folder": replace_by_folder,
    "pipe": replace_by_pipe,
    "loop": replace_by_loop,
    "dangling": replace_by_nothing,
    "device": replace_by_device,
    "empty": lambda path: path.write_bytes(b""),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "other JSON": lambda path: path.write_text("[1, 2]"),
}


@pytest.mark.parametrize("damage", STRANGE.values(), ids=STRANGE)
@pytest.mark.parametrize("key", [MASK, ITEMS, STATISTIC], ids=lambda key: key.kind)
def test_whatever_stands_in_the_place_is_set_aside_and_written_again(filled, key, damage):
    whole = content(filled)
    path = filled.path(key)
    damage(path / "meta.json" if path.is_dir() else path)
    assert list(content(filled).values()).count(None) == 1
    fill(filled)
    assert content(filled) == whole
    assert len(list((filled.root / "damaged" / key.kind).iterdir())) == 1


def test_a_write_finds_damage_that_no_reader_has_seen(filled):
    flip(filled.path(MASK), 100)
    flip(filled.path(STATISTIC) / "sums.safetensors", 900)
    assert filled.write_json(MASK, {"a": 1}) == {"a": 1}
    filled.write_statistic(STATISTIC, PROFILE, SUMS, SAMPLES)
    assert filled.read_json(MASK) == {"a": 1}
    assert (filled.read_sums(STATISTIC)["count"] == SUMS["count"]).all()


def test_a_file_in_the_place_of_a_folder_of_the_store(filled):
    for kind in ("statistics", "masks"):
        (filled.root / kind).rename(filled.root / f"old {kind}")
        (filled.root / kind).write_text("")
    store = Store(filled.root)
    reports: list[str] = []
    store.listen(reports.append)
    assert len(reports) == 2
    store.write_json(MASK, {"a": 1})
    assert store.read_json(MASK) == {"a": 1}


def test_every_artefact_says_what_made_it_and_serves_no_other_key(filled):
    assert json.loads(filled.path(MASK).read_text())["made_by"] == MASK.record()
    metadata = pyarrow.parquet.read_metadata(filled.path(ITEMS)).metadata
    assert json.loads(metadata[b"mbench"]) == ITEMS.record()
    meta = json.loads((filled.path(STATISTIC) / "meta.json").read_text())
    assert meta["made_by"] == STATISTIC.record()
    # The files of other keys, put in the place of these.
    keys = (MASK, ITEMS, STATISTIC)
    other = [Key.of(key.kind, "other", {**key.made_by, "code": "2"}) for key in keys]
    for key, stranger in zip(keys, other, strict=True):
        filled.path(key).rename(filled.path(stranger))
    assert filled.read_json(other[0]) is None
    assert filled.read_items(other[1]) is None
    assert not filled.has_statistic(other[2])


def test_statistics_round_trip(filled):
    assert filled.read_profile(STATISTIC) == PROFILE
    assert (filled.read_sums(STATISTIC)["count"] == SUMS["count"]).all()
    assert (filled.read_samples(STATISTIC, 2)["gram"] == SAMPLES["gram"][2]).all()
    names = [path.name for path in (filled.root / "statistics").iterdir()]
    assert names == [STATISTIC.digest]


def test_what_exists_stays_unless_it_is_of_other_items(filled):
    assert filled.write_json(MASK, {"a": 2}) == {"a": 1}
    assert filled.write_json(MASK, {"a": 3}, replace=True) == filled.read_json(MASK) == {"a": 3}
    later = OUTCOMES.assign(acc=0.5)
    assert filled.write_items(ITEMS, later).acc.tolist() == [1.0, 0.0]
    others = later.assign(item=["1", "3"])
    assert filled.write_items(ITEMS, others).item.tolist() == ["1", "3"]
    assert filled.read_items(ITEMS).item.tolist() == ["1", "3"]
    filled.write_statistic(STATISTIC, PROFILE, {"count": np.zeros(1)}, {})
    assert filled.read_sums(STATISTIC)["count"].shape == (2, 3, 4)


def test_a_store_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot use the store"):
        Store(tmp_path / "file" / "store")


def test_modes_are_those_of_the_umask_and_of_a_shared_folder(tmp_path):
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o2775)
    script = (
        "import os, sys, pathlib, numpy; os.umask(0o002)\n"
        "from mbench.storage.store import Key, Store\n"
        "from mbench.core.run_record import CorpusProfile\n"
        "store = Store(pathlib.Path(sys.argv[1]))\n"
        "store.write_json(Key.of('masks', 'm', {}), 1)\n"
        "key = Key.of('statistics', 's', {})\n"
        "store.write_statistic(key, CorpusProfile(1), {'a': numpy.ones(2)}, {})\n"
    )
    subprocess.run([sys.executable, "-c", script, str(shared)], check=True)
    made = list(shared.rglob("*"))
    assert len(made) == 6
    for path in made:
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o2775 if path.is_dir() else 0o664), path


def test_temporaries_of_processes_that_are_gone_are_swept(tmp_path):
    script = (
        "import os, sys, pathlib\n"
        "from mbench.storage.atomic import new_folder, write_atomically\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "def die(path):\n"
        "    path.write_text('half')\n"
        "    with new_folder(folder / 'b') as partial:\n"
        "        (partial / 'x').write_text('half')\n"
        "        if sys.argv[2] == 'die': os._exit(0)\n"
        "        print(flush=True); sys.stdin.read()\n"
        "write_atomically(folder / 'a', die)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    subprocess.run([*command, "die"], check=True)
    (tmp_path / "theirs.partial").write_text("")
    foreign = tmp_path / ".a.elsewhere-1.1.0.partial"
    foreign.write_text("")
    with subprocess.Popen(
        [*command, "live"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as live:
        live.stdout.readline()
        assert len(list(tmp_path.iterdir())) == 6
        assert sweep(tmp_path) == 2
        assert len(list(tmp_path.iterdir())) == 4
        live.communicate(b"")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        ["a", "b", "theirs.partial", foreign.name]
    )
    week_ago = time.time() - 8 * 24 * 3600
    os.utime(foreign, (week_ago, week_ago))
    assert sweep(tmp_path) == 1


def test_scratch_folders_of_killed_processes_are_removed_and_those_in_use_stay(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "mbench-notes.txt").write_text("the user's")
    script = (
        "import os\nfrom mbench.storage.atomic import scratch_folder\n"
        "(scratch_folder('offload') / 'weights').write_text('')\nos._exit(0)\n"
    )
    subprocess.run(
        [sys.executable, "-c", script], check=True, env=os.environ | {"TMPDIR": str(tmp_path)}
    )
    (left,) = tmp_path.glob("mbench-offload-*/weights")
    mine = scratch_folder("models")
    week_ago = time.time() - 8 * 24 * 3600
    os.utime(mine, (week_ago, week_ago))
    other = scratch_folder("models")
    assert set(tmp_path.iterdir()) == {tmp_path / "mbench-notes.txt", mine, other}
    assert not left.exists()
