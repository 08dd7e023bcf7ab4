"""Reads the headers of safetensors files, and writes new files by copying ranges of bytes.

The library's writer needs all tensors of a file in memory; copying ranges needs only a buffer, and
is exact bit for bit whatever the dtype. The format: the length of the header (8 bytes,
little-endian), the header (JSON: name -> dtype, shape and offsets), then the tensors without gaps.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from mbench.core.errors import ModelNotFound, UnsupportedModel

SHARD_BYTES = 5 * 10**9
"""A file is closed before it grows beyond this; a single tensor may be larger."""

INDEX = "model.safetensors.index.json"
BUFFER_BYTES = 1 << 24
"""Copied at once; a multiple of every dtype's size."""


@dataclass(frozen=True)
class StoredTensor:
    """Where a file holds a tensor."""

    file: Path
    dtype: str
    """As safetensors writes it, e.g. `BF16`."""
    shape: tuple[int, ...]
    start: int
    """First byte in the file."""
    size: int
    """Bytes."""


@dataclass(frozen=True)
class NewTensor:
    """A tensor to be written: a stored one whole, or some entries of one of its dimensions."""

    name: str
    stored: StoredTensor
    dim: int = 0
    kept: tuple[int, ...] | None = None
    """Entries of `dim` that are kept; None: all."""
    change: Callable[[bytes], bytes] | None = None
    """Applied to every piece that is copied, which it must not make longer or shorter."""
    made: Callable[[], Iterable[bytes]] | None = None
    """Gives the bytes, as many, that are written instead of the stored ones, e.g. a sum."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape: the stored one with `dim` cut to the kept entries."""
        if self.kept is None:
            return self.stored.shape
        shape = list(self.stored.shape)
        shape[self.dim] = len(self.kept)
        return tuple(shape)

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(length for _, length in self.ranges())

    @property
    def parameters(self) -> int:
        """Numbers in it."""
        return math.prod(self.shape)

    def ranges(self) -> list[tuple[int, int]]:
        """(first byte in the file, length) of what is copied, in order."""
        stored = self.stored
        if self.kept is None:
            return [(stored.start, stored.size)]
        entry, rest = divmod(stored.size, stored.shape[self.dim])
        # With a longer dimension before it, an entry would not be one range.
        if rest or math.prod(stored.shape[: self.dim]) != 1:
            raise UnsupportedModel(
                f"{stored.file.name}: dimension {self.dim} of {self.name} ({stored.dtype} "
                f"{list(stored.shape)}) cannot be sliced: its entries are not contiguous"
            )
        return [(stored.start + number * entry, entry) for number in self.kept]


def read_headers(files: Iterable[Path]) -> dict[str, StoredTensor]:
    """Return every tensor of the files by name, in the order of the bytes.

    Raises `ModelNotFound` for a file that is damaged or truncated.
    """
    tensors_by_name: dict[str, StoredTensor] = {}
    for path in files:
        try:
            size = path.stat().st_size
            with path.open("rb") as file:
                length = int.from_bytes(file.read(8), "little")
                if length > size:
                    raise ValueError
                header = json.loads(file.read(length))
            header.pop("__metadata__", None)
            tensors = [
                StoredTensor(
                    path,
                    entry["dtype"],
                    tuple(entry["shape"]),
                    8 + length + entry["data_offsets"][0],
                    entry["data_offsets"][1] - entry["data_offsets"][0],
                )
                for entry in header.values()
            ]
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ModelNotFound(f"{path} is damaged, or not a safetensors file") from None
        named = sorted(zip(header, tensors, strict=True), key=lambda pair: pair[1].start)
        if named and named[-1][1].start + named[-1][1].size != size:
            raise ModelNotFound(f"{path} is truncated")
        tensors_by_name.update(named)
    return tensors_by_name


def write_checkpoint(
    directory: Path,
    tensors: Sequence[NewTensor],
    shard_bytes: int = SHARD_BYTES,
    variant: str = "",
) -> None:
    """Write `model.safetensors`, or numbered files and their index where one would be too large.

    A variant stands in their names as transformers has it: only who asks for it finds them.
    """
    shards = _shards(tensors, shard_bytes)
    middle = f".{variant}" if variant else ""
    names = [f"model{middle}.safetensors"]
    if len(shards) > 1:
        total = f"{len(shards):05d}"
        numbers = range(1, len(shards) + 1)
        names = [f"model{middle}-{i:05d}-of-{total}.safetensors" for i in numbers]
        index = {
            "metadata": {"total_size": sum(tensor.size for tensor in tensors)},
            "weight_map": {
                tensor.name: name
                for name, shard in zip(names, shards, strict=True)
                for tensor in shard
            },
        }
        file = directory / INDEX.replace(".json", f"{middle}.json")
        file.write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")
    for name, shard in zip(names, shards, strict=True):
        _write_file(directory / name, shard)


def _shards(tensors: Sequence[NewTensor], shard_bytes: int) -> list[list[NewTensor]]:
    shards: list[list[NewTensor]] = [[]]
    size = 0
    for tensor in tensors:
        if shards[-1] and size + tensor.size > shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(tensor)
        size += tensor.size
    return shards


def _write_file(path: Path, tensors: Sequence[NewTensor]) -> None:
    # Wide dtypes first, so that every tensor starts at a multiple of its numbers' size.
    tensors = sorted(tensors, key=lambda t: t.size / max(1, t.parameters), reverse=True)
    header: dict[str, Mapping[str, object]] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for tensor in tensors:
        header[tensor.name] = {
            "dtype": tensor.stored.dtype,
            "shape": tensor.shape,
            "data_offsets": [offset, offset + tensor.size],
        }
        offset += tensor.size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("xb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        sources: dict[Path, BinaryIO] = {}
        try:
            for tensor in tensors:
                if tensor.made is not None:
                    out.writelines(tensor.made())
                    continue
                source = tensor.stored.file
                if source not in sources:
                    sources[source] = source.open("rb")
                for start, length in tensor.ranges():
                    copy_range(sources[source], start, length, out, tensor.change)
        finally:
            for file in sources.values():
                file.close()


def copy_range(
    source: BinaryIO,
    start: int,
    length: int,
    out: BinaryIO,
    change: Callable[[bytes], bytes] | None = None,
) -> None:
    """Append bytes of one file to another, each piece changed if asked; raises `ModelNotFound`."""
    source.seek(start)
    while length:
        data = source.read(min(length, BUFFER_BYTES))
        if not data:
            raise ModelNotFound(f"{source.name} is truncated")
        out.write(change(data) if change else data)
        length -= len(data)
