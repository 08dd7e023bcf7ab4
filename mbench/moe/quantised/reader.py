"""Reads safetensors files as if all weights in them were plain, decoding those that are not.

What reads a checkpoint (transformers, a comparison) asks for weights by the names of an unquantised
one, and sees no scales. The parts of a weight may lie in different files. No quantizer of
transformers takes part: several of them give other numbers than the form's definition.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import EllipsisType
from typing import Any

import torch
from safetensors import safe_open

from mbench.core.errors import ModelNotFound, UnsupportedModel
from mbench.moe.quantised.form import Form
from mbench.storage.safetensor_files import INDEX, StoredTensor, read_headers

PLAIN = ("F64", "F32", "F16", "BF16", "I64", "BOOL")
"""Dtypes of tensors that mean what they hold: numbers, counters and masks."""
PLAIN_IN_TORCH = ("float64", "float32", "float16", "bfloat16", "int64", "bool")


class StoredWeights:
    """All weights of a checkpoint by the names of an unquantised one."""

    def __init__(self, files: Sequence[Path], form: Form | None) -> None:
        """Read the headers; `form` is how some weights are stored, None: all are plain.

        Raises `ModelNotFound` for a damaged file, and `UnsupportedModel` for a tensor that is
        neither plain nor part of a weight in this form.
        """
        self.form = form
        self.tensors: Mapping[str, StoredTensor] = read_headers(files)
        """Everything in the files, by its own name."""
        self.parts: dict[str, dict[str, str]] = {}
        """Weight -> role -> name of the tensor that has it."""
        for name in self.tensors:
            part = form.part(name) if form else None
            weight, role = (part.weight, part.role) if part else (name, "")
            roles = self.parts.setdefault(weight, {})
            if role in roles:
                raise UnsupportedModel(f"{name} and {roles[role]} are the same part of {weight}")
            roles[role] = name
        beside = set(form.beside) if form else set()
        for weight in [each for each, roles in self.parts.items() if roles.keys() <= beside]:
            del self.parts[weight]
        for weight in filter(self.is_plain, self.parts):
            refuse_stored(weight, self.tensors[weight].dtype, self.tensors[weight].shape, form)

    def is_plain(self, weight: str) -> bool:
        """Whether the weight is one tensor that means what it holds."""
        return list(self.parts[weight].values()) == [weight]

    def read(
        self,
        weight: str,
        device: torch.device | str | int = "cpu",
        dtype: torch.dtype | None = None,
    ) -> torch.Tensor:
        """The numbers of a weight, rounded once to `dtype`; None: as stored, decoded to float32.

        Raises `UnsupportedModel` where its parts contradict the form.
        """
        if self.form is None or self.is_plain(weight):
            return self._tensor(weight).to(device=device, dtype=dtype)
        parts = {role: self._tensor(name).to(device) for role, name in self.parts[weight].items()}
        pieces = self.form.pieces(weight, parts)
        first = self.form.decode(weight, pieces[0]).to(dtype or torch.float32)
        if len(pieces) == 1:
            return first
        whole = first.new_empty(len(pieces), *first.shape)
        whole[0] = first
        for number, piece in enumerate(pieces[1:], 1):
            whole[number] = self.form.decode(weight, piece)
        return whole.flatten(0, 1)

    def open_file(self, file: str) -> WeightsOfFile:
        """A file as safetensors' own reader shows it."""
        return WeightsOfFile(self, Path(file))

    @cached_property
    def by_file(self) -> dict[str, list[str]]:
        """Name of a file -> weights whose first part it holds."""
        found: dict[str, list[str]] = {}
        for weight, roles in self.parts.items():
            first = self.tensors[next(iter(roles.values()))]
            found.setdefault(first.file.name, []).append(weight)
        return found

    def _tensor(self, name: str) -> torch.Tensor:
        tensor: torch.Tensor = self._opened[self.tensors[name].file].get_tensor(name)
        return tensor

    @cached_property
    def _opened(self) -> dict[Path, Any]:
        # Read with pread: a mapped file counts as memory of the process.
        files = {tensor.file for tensor in self.tensors.values()}
        return {file: safe_open(file, framework="pt", backend="pread") for file in files}


class WeightsOfFile:
    """The weights whose first part is in one file; stands in for what `safe_open` returns."""

    def __init__(self, weights: StoredWeights, file: Path) -> None:
        """Nothing is read yet."""
        self._weights = weights
        self._shown = weights.by_file.get(file.name, [])

    def __enter__(self) -> WeightsOfFile:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is open."""

    def keys(self) -> list[str]:
        """Names of weights."""
        return self._shown

    def get_slice(self, weight: str) -> Weight:
        """The weight, not read yet."""
        return Weight(self._weights, weight)

    def get_tensor(self, weight: str) -> torch.Tensor:
        """Its numbers."""
        return self._weights.read(weight)


class Weight:
    """A weight that is read when its device and dtype are known, so that it is rounded once."""

    def __init__(self, weights: StoredWeights, name: str) -> None:
        """Nothing is read yet."""
        self._weights, self._name = weights, name

    def __getitem__(self, index: Any) -> torch.Tensor | Weight:
        """Entries of it; with `...`, which is how transformers asks for all, itself."""
        return self if isinstance(index, EllipsisType) else self._weights.read(self._name)[index]

    def to(
        self, device: torch.device | str | int | None = None, dtype: torch.dtype | None = None
    ) -> torch.Tensor:
        """Read it."""
        return self._weights.read(self._name, "cpu" if device is None else device, dtype)

    def get_dtype(self) -> str:
        """As safetensors calls it."""
        if self._weights.is_plain(self._name):
            return self._weights.tensors[self._name].dtype
        return "F32"


def refuse_stored(name: str, dtype: str, shape: Sequence[int], form: Form | None = None) -> None:
    """Raise `UnsupportedModel` for a tensor that does not mean what it holds, without its scales.

    transformers would take the stored codes for numbers.
    """
    if dtype in (*PLAIN, *PLAIN_IN_TORCH):
        return
    lacks = "the checkpoint's configuration does not say in which form"
    if form:
        lacks = f"has no scales, which {form.words} needs"
    raise UnsupportedModel(f"{name} is stored in {dtype} {list(shape)}, and {lacks}")


def weight_files(folder: Path, variant: str | None = None) -> list[Path]:
    """The safetensors files of a checkpoint, or none; `variant` stands in their names.

    Raises `ModelNotFound` for an index that is none.
    """
    middle = f".{variant}" if variant else ""
    single = folder / f"model{middle}.safetensors"
    if single.is_file():
        return [single]
    index = folder / INDEX.replace(".json", f"{middle}.json")
    if not index.is_file():
        return []
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        return sorted(folder / name for name in names)
    except (ValueError, KeyError, AttributeError, TypeError):
        raise ModelNotFound(f"{index} is not an index of weight files") from None
