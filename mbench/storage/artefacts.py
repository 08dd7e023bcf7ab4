"""The forms in which a store keeps things; each is read whole and verified before it is used.

    statistics  a folder: `meta.json`, which holds the checksums of the safetensors files beside it
    evaluations a parquet file, whose metadata hold the checksum and what made it
    all others  a JSON file: `checksum`, `made_by` and `content`

Every reader takes the path and the digest that the artefact must have, and raises
`FileNotFoundError` where there is none, `Damaged` where it is not what was written or is another.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from mbench.core.errors import Damaged, ModelNotFound
from mbench.core.run_record import CorpusProfile
from mbench.storage.place import Place, RemotePlace
from mbench.storage.records import from_plain, to_plain
from mbench.storage.sample_files import Sample, mapped_arrays, write_sample
from mbench.storage.seal import (
    OPEN_SEAL,
    check,
    check_file_sha256,
    check_sha256,
    read_file,
    sealed,
)

if TYPE_CHECKING:
    import pandas as pd

Kind = Literal["statistics", "masks", "evaluations", "probes", "efficiency", "facts"]
"""The folders of a store."""

KINDS: tuple[Kind, ...] = get_args(Kind)

META = "meta.json"
SUMS = "sums.safetensors"
RECORD, CHECKSUM = b"mbench", b"mbench.checksum"
"""Where the metadata of a parquet file say what made it, and hold its checksum."""


def file_name(kind: Kind, digest: str) -> str:
    """The name of an artefact within the folder of its kind."""
    return digest + {"statistics": "", "evaluations": ".parquet"}.get(kind, ".json")


def canonical(value: Any) -> str:
    """Equal values as equal text: order and spacing do not matter."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def digest_of(made_by: Mapping[str, Any]) -> str:
    """What names an artefact: sha256 of everything that decides it, as canonical JSON."""
    return hashlib.sha256(canonical(made_by).encode()).hexdigest()


@dataclass(frozen=True)
class JsonArtefact:
    """A mask, a measurement or a fact."""

    record: Mapping[str, Any]
    """What made it, with its `label`."""
    content: Any


def json_bytes(record: Mapping[str, Any], content: Any) -> bytes:
    """The file of a JSON artefact."""
    parts = {"checksum": OPEN_SEAL, "made_by": record, "content": content}
    return sealed(json.dumps(parts, sort_keys=True).encode())


def read_json(path: Place, digest: str) -> JsonArtefact:
    """Read a JSON artefact."""
    stored = _sealed_json(read_file(path))
    return JsonArtefact(_checked(stored.get("made_by"), digest), stored.get("content"))


@dataclass(frozen=True)
class TableArtefact:
    """The per-item outcomes of an evaluation."""

    record: Mapping[str, Any]
    items: pd.DataFrame


def table_bytes(record: Mapping[str, Any], items: pd.DataFrame) -> bytes:
    """The file of per-item outcomes."""
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.Table.from_pandas(items, preserve_index=False)
    buffer = io.BytesIO()
    with pyarrow.parquet.ParquetWriter(buffer, table.schema) as writer:
        writer.write_table(table)
        text = json.dumps(record, sort_keys=True)
        writer.add_key_value_metadata({RECORD: text, CHECKSUM: OPEN_SEAL})
    return sealed(buffer.getvalue())


def read_table(path: Place, digest: str) -> TableArtefact:
    """Read per-item outcomes."""
    import pyarrow
    import pyarrow.parquet

    content = read_file(path)
    check(content)
    try:
        file = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(content))
        record = json.loads(file.metadata.metadata[RECORD])
        items = file.read().to_pandas()
    except (OSError, ValueError, KeyError, TypeError, pyarrow.ArrowException) as error:
        raise Damaged(f"it is no table of items: {type(error).__name__}") from None
    return TableArtefact(_checked(record, digest), items)


@dataclass(frozen=True)
class StatisticArtefact:
    """A statistic without its arrays, which are read when they are needed."""

    record: Mapping[str, Any]
    profile: CorpusProfile
    """What the pass that collected it counted."""
    files: Mapping[str, Mapping[str, Any]]
    """Name -> `bytes` and `sha256`."""


def write_statistic(
    folder: Path,
    record: Mapping[str, Any],
    profile: CorpusProfile,
    sums: Mapping[str, np.ndarray],
    samples: Mapping[str, Sequence[np.ndarray]],
) -> None:
    """Fill an empty folder with a statistic; see `Store.write_statistic`."""
    from safetensors.numpy import save

    data = save({name: np.ascontiguousarray(array) for name, array in sums.items()})
    (folder / SUMS).write_bytes(data)
    files = {SUMS: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}}
    if isinstance(samples, Sample):
        for file in samples.files:
            _link(file.path, folder / file.path.name)
    written = samples.files if isinstance(samples, Sample) else write_sample(folder, samples)
    files |= {file.path.name: {"bytes": file.size, "sha256": file.sha256} for file in written}
    meta = {
        "checksum": OPEN_SEAL,
        "made_by": record,
        "profile": to_plain(profile),
        "files": files,
    }
    (folder / META).write_bytes(sealed(json.dumps(meta, sort_keys=True).encode()))


def read_statistic(path: Place, digest: str) -> StatisticArtefact:
    """Read what a statistic says of itself; its files are there and as long as they should be."""
    try:
        stored = _sealed_json(read_file(path / META))
    except FileNotFoundError:
        raise _missing(path, META) from None
    record = _checked(stored.get("made_by"), digest)
    try:
        profile = from_plain(CorpusProfile, stored["profile"])
        files = dict(stored["files"])
        lengths = {name: int(file["bytes"]) for name, file in files.items()}
        actual = _sizes(path, {name: str(file["sha256"]) for name, file in files.items()})
    except (ValueError, KeyError, TypeError) as error:
        raise Damaged(f"{META} is not that of a statistic: {error}") from None
    for name, length in lengths.items():
        if name not in actual:
            raise _missing(path, name)
        if actual[name] != length:
            raise Damaged(f"{name} has {actual[name]} bytes, not {length}")
    return StatisticArtefact(record, profile, files)


def _sizes(path: Place, files: Mapping[str, str]) -> dict[str, int]:
    """Bytes of those files of a statistic, given with their sha256, that are there."""
    if isinstance(path, RemotePlace):
        sizes = path.sizes()
        members = {name: path.member(name, sha256).name for name, sha256 in files.items()}
        return {name: sizes[member] for name, member in members.items() if member in sizes}
    found = {}
    for name in files:
        with contextlib.suppress(OSError):
            found[name] = (path / name).stat().st_size
    return found


def _link(source: Path, target: Path) -> None:
    """Give a file a second name, or its content where the file system cannot."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def read_arrays(path: Place, digest: str, name: str) -> dict[str, np.ndarray]:
    """Arrays by name of one file of a statistic, read-only and memory-mapped."""
    statistic = read_statistic(path, digest)
    try:
        if isinstance(path, RemotePlace):
            sha256 = _expected(name, statistic)
            with _naming(path, name):
                return path.member(name, sha256).with_copy(sha256, mapped_arrays)
        _check_file(path, name, statistic)
        return mapped_arrays(path / name)
    except (ModelNotFound, ValueError, KeyError) as error:
        raise Damaged(f"{name} holds no arrays: {error}") from None


def verify(kind: Kind, path: Place, digest: str) -> Mapping[str, Any]:
    """Read every byte of an artefact; returns what made it, with its `label`."""
    if kind == "evaluations":
        return read_table(path, digest).record
    if kind != "statistics":
        return read_json(path, digest).record
    statistic = read_statistic(path, digest)
    for name in statistic.files:
        _check_file(path, name, statistic)
    return statistic.record


def label_of(kind: Kind, path: Place, digest: str) -> str:
    """What an artefact says it is, for people; the arrays of a statistic are not read."""
    if kind == "statistics":
        return str(read_statistic(path, digest).record.get("label", ""))
    return str(verify(kind, path, digest).get("label", ""))


def files_of(kind: Kind, path: Place, digest: str) -> Iterator[tuple[str, bytes]]:
    """The verified files of an artefact, by name within its folder, or with its own name."""
    if kind == "statistics":
        statistic = read_statistic(path, digest)
        for name in statistic.files:
            yield name, _checked_file(path, name, statistic)
        yield META, read_file(path / META)
    else:
        verify(kind, path, digest)
        yield path.name, read_file(path)


def _check_file(path: Place, name: str, statistic: StatisticArtefact) -> None:
    """Raise `Damaged` unless a file is what was written; one on a disk is read in pieces."""
    if isinstance(path, RemotePlace):
        _checked_file(path, name, statistic)
        return
    expected = _expected(name, statistic)
    with _naming(path, name):
        check_file_sha256(path / name, expected)


def _checked_file(path: Place, name: str, statistic: StatisticArtefact) -> bytes:
    sha256 = _expected(name, statistic)
    with _naming(path, name):
        member = path.member(name, sha256) if isinstance(path, RemotePlace) else path / name
        data = read_file(member)
        check_sha256(data, sha256)
        return data


def _expected(name: str, statistic: StatisticArtefact) -> str:
    if name not in statistic.files:
        raise Damaged(f"it has no {name}")
    return str(statistic.files[name]["sha256"])


@contextlib.contextmanager
def _naming(path: Place, name: str) -> Iterator[None]:
    """Let what is raised for a file name it."""
    try:
        yield
    except FileNotFoundError:
        raise _missing(path, name) from None
    except Damaged as damage:
        raise Damaged(f"{name}: {damage}") from None


def _missing(path: Place, name: str) -> Exception:
    """A folder without one of its files is damaged; without a folder, nothing is there.

    Elsewhere than on a disk, a folder is there once its `meta.json` is, which comes last.
    """
    there = name != META if isinstance(path, RemotePlace) else os.path.lexists(path)
    return Damaged(f"{name} is missing") if there else FileNotFoundError(str(path))


def _sealed_json(content: bytes) -> dict[str, Any]:
    check(content)
    try:
        stored = json.loads(content)
    except (ValueError, RecursionError):
        stored = None
    if not isinstance(stored, dict):
        raise Damaged("it is no JSON object")
    return stored


def _checked(record: Any, digest: str) -> Mapping[str, Any]:
    """Raise `Damaged` unless this is the record of the artefact with this digest."""
    if not isinstance(record, dict):
        raise Damaged("it does not say what made it")
    if digest_of({name: value for name, value in record.items() if name != "label"}) != digest:
        raise Damaged("it is another artefact's")
    return record
