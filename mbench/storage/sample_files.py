"""A statistic's sample while it is collected: it grows in files, one a layer, and never in memory.

The files are those of the finished artefact, byte for byte as the safetensors library writes them.
Where the number of tokens is known before, a file has its final size at once and is filled in
place; else pieces are appended as they come, and put in order when all are there.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np

from mbench.core.errors import PluginError, StoreError
from mbench.storage.atomic import discard, scratch_folder
from mbench.storage.safetensor_files import copy_range, read_headers

_DTYPES = {
    "U64": "uint64",
    "I64": "int64",
    "F64": "float64",
    "C64": "complex64",
    "F32": "float32",
    "U32": "uint32",
    "I32": "int32",
    "F16": "float16",
    "U16": "uint16",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}
"""As safetensors names them, in the order in which it writes them."""

_NAMES = {np.dtype(name): code for code, name in _DTYPES.items()}
_ORDER = {code: number for number, code in enumerate(_DTYPES)}


def layer_file(layer: int) -> str:
    """The file of a statistic's samples in one layer."""
    return f"layer-{layer:03d}.safetensors"


@dataclass(frozen=True)
class WrittenFile:
    """A file of a finished sample."""

    path: Path
    size: int
    """Bytes."""
    sha256: str


class Sample(Mapping[str, Sequence[np.ndarray]]):
    """A finished sample: by array name, one read-only memory-mapped array [t, ...] per layer."""

    def __init__(self, files: Sequence[WrittenFile], owner: SampleFiles) -> None:
        """The files of all layers, in order, and what keeps their folder."""
        self.files = tuple(files)
        self._owner = owner

    def discard(self) -> None:
        """Remove the folder now."""
        self._owner.discard()

    def layer(self, number: int) -> dict[str, np.ndarray]:
        """All arrays of one layer by name, mapped once."""
        return mapped_arrays(self.files[number].path)

    def __getitem__(self, name: str) -> list[np.ndarray]:
        return [self.layer(number)[name] for number in range(len(self.files))]

    def __iter__(self) -> Iterator[str]:
        return iter(read_headers([self.files[0].path]))

    def __len__(self) -> int:
        return len(read_headers([self.files[0].path]))


@dataclass
class _Growing:
    """An array [t, ...] that is being written."""

    dtype: str
    tail: tuple[int, ...]
    """Its shape without the first dimension."""
    offset: int = 0
    """Where it begins in a file of known size."""
    rows: int = 0
    """That have been written."""
    pieces: list[tuple[int, int]] = field(default_factory=list)
    """First byte and length of each in a file that is appended to."""

    @property
    def row_bytes(self) -> int:
        return math.prod(self.tail) * np.dtype(_DTYPES[self.dtype]).itemsize


@dataclass
class SampleFiles:
    """The files of one statistic's sample, which grow with every batch of every layer."""

    folder: Path
    """Empty; removed with this object and the sample that it becomes."""
    rows: int | None = None
    """Tokens that every layer will have, where that is known before."""
    remove: Callable[[Path], object] = discard
    """Removes the folder."""
    _layers: dict[int, dict[str, _Growing]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._removal = weakref.finalize(self, self.remove, self.folder)

    def append(self, layer: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Add arrays [t, ...] to those of a layer.

        Raises:
            PluginError: a dtype that cannot be stored, another dtype or shape than before, or more
                tokens than were announced.
            StoreError: the folder cannot be written, e.g. because the disk is full.
        """
        try:
            if layer not in self._layers:
                self._layers[layer] = self._begin(layer, arrays)
            with self._path(layer).open("r+b") as file:
                for name, array in arrays.items():
                    self._write(file, self._layers[layer][name], name, np.ascontiguousarray(array))
        except OSError as error:
            raise StoreError(f"cannot write {self.folder}: {error.strerror or error}") from error

    def _path(self, layer: int) -> Path:
        name = layer_file(layer)
        return self.folder / (name if self.rows is not None else f"{name}.pieces")

    def _begin(self, layer: int, arrays: Mapping[str, np.ndarray]) -> dict[str, _Growing]:
        growing: dict[str, _Growing] = {}
        for name, array in arrays.items():
            if array.dtype not in _NAMES:
                raise PluginError(f"{name!r} has numbers of type {array.dtype}: they have no file")
            growing[name] = _Growing(_NAMES[array.dtype], array.shape[1:])
        growing = dict(sorted(growing.items(), key=lambda pair: (_ORDER[pair[1].dtype], pair[0])))
        with self._path(layer).open("xb") as file:
            if self.rows is not None:
                start = file.write(_header(growing, dict.fromkeys(growing, self.rows)))
                for each in growing.values():
                    each.offset = start
                    start += self.rows * each.row_bytes
                file.truncate(start)
        return growing

    def _write(self, file: BinaryIO, growing: _Growing, name: str, array: np.ndarray) -> None:
        if array.shape[1:] != growing.tail or _NAMES.get(array.dtype) != growing.dtype:
            raise PluginError(
                f"{name!r} has shape {array.shape} of {array.dtype} after"
                f" {(growing.rows, *growing.tail)} of {_DTYPES[growing.dtype]}: only the first"
                " dimension may vary"
            )
        if self.rows is None:
            growing.pieces.append((file.seek(0, os.SEEK_END), array.nbytes))
        elif growing.rows + len(array) > self.rows:
            raise PluginError(f"{name!r} has more than the {self.rows} tokens that are sampled")
        else:
            file.seek(growing.offset + growing.rows * growing.row_bytes)
        file.write(array.reshape(-1).view(np.uint8).data)
        growing.rows += len(array)

    def finish(self) -> Sample:
        """Complete the files and return them; nothing can be added any more.

        Raises:
            PluginError: there are fewer tokens than were announced.
            StoreError: the folder cannot be read or written.
        """
        try:
            for layer, growing in self._layers.items():
                if self.rows is None:
                    _put_in_order(self._path(layer), self.folder / layer_file(layer), growing)
                elif short := [name for name, each in growing.items() if each.rows < self.rows]:
                    raise PluginError(
                        f"{short[0]!r} has {growing[short[0]].rows} tokens, not the {self.rows}"
                        " that are sampled"
                    )
            files = [_written(self.folder / layer_file(n)) for n in sorted(self._layers)]
        except OSError as error:
            raise StoreError(f"cannot write {self.folder}: {error.strerror or error}") from error
        return Sample(files, self)

    def discard(self) -> None:
        """Remove the folder now."""
        self._removal()


def scratch_sample(rows: int | None = None) -> SampleFiles:
    """The files of a sample that no store keeps, among the system's temporaries."""
    return SampleFiles(scratch_folder("sample"), rows)


def write_sample(
    folder: Path, samples: Mapping[str, Sequence[np.ndarray]]
) -> tuple[WrittenFile, ...]:
    """Write arrays [t, ...] of all layers into a folder, which stays; returns its files."""
    files = SampleFiles(folder, remove=lambda folder: None)
    for layer in range(len(next(iter(samples.values()), []))):
        files.append(layer, {name: of[layer] for name, of in samples.items()})
    return files.finish().files


def mapped_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file by name, read-only, memory-mapped.

    Raises `ModelNotFound` for a file that is damaged, `KeyError` for a dtype that numpy lacks.
    """
    arrays: dict[str, np.ndarray] = {}
    for name, stored in read_headers([path]).items():
        dtype = np.dtype(_DTYPES[stored.dtype])
        if stored.size:
            mapped = np.memmap(path, dtype, "r", stored.start, stored.shape)
            arrays[name] = np.asarray(mapped)  # what it gives is a plain array, too
        else:
            arrays[name] = np.empty(stored.shape, dtype)
    return arrays


def _header(growing: Mapping[str, _Growing], rows: Mapping[str, int]) -> bytes:
    header, start = {}, 0
    for name, array in growing.items():
        end = start + rows[name] * array.row_bytes
        shape = [rows[name], *array.tail]
        header[name] = {"dtype": array.dtype, "shape": shape, "data_offsets": [start, end]}
        start = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _put_in_order(pieces: Path, path: Path, growing: Mapping[str, _Growing]) -> None:
    with pieces.open("rb") as source, path.open("xb") as out:
        out.write(_header(growing, {name: array.rows for name, array in growing.items()}))
        for array in growing.values():
            for start, length in array.pieces:
                copy_range(source, start, length, out)
    pieces.unlink()


def _written(path: Path) -> WrittenFile:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return WrittenFile(path, file.tell(), digest)
