"""Samples on their way from the device into the files of an artefact."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from mbench.core.errors import PluginError
from mbench.core.interfaces import Statistic
from mbench.moe.host import Copies
from mbench.storage.sample_files import Sample, SampleFiles

STAGED_BYTES = 1 << 26
"""That may be on their way from devices before these are waited for."""


@dataclass(frozen=True)
class _Staged:
    """A layer's arrays on their way to the host."""

    statistic: Statistic
    layer: int
    path: str
    """The layer's."""
    names: tuple[str, ...]
    copies: Copies


class CollectedSamples:
    """The samples of `concatenate` statistics, of which memory never holds much."""

    def __init__(
        self,
        tokens: Mapping[str, np.ndarray],
        new_sample: Callable[[int | None], SampleFiles],
        leaving_out: Callable[[str], AbstractContextManager[None]],
    ) -> None:
        """`tokens` that statistics sample, by identity, as far as they are known before."""
        self._tokens = tokens
        self._new_sample = new_sample
        self._leaving_out = leaving_out
        self._files: dict[str, tuple[Statistic, SampleFiles]] = {}
        self._staged: list[_Staged] = []

    def add(
        self, statistic: Statistic, layer: int, path: str, arrays: Mapping[str, torch.Tensor]
    ) -> None:
        """Add a layer's arrays [t, ...]; that they are finite is found out on the host, later."""
        staged = _Staged(statistic, layer, path, tuple(arrays), Copies(list(arrays.values())))
        self._staged.append(staged)
        if staged.copies.there or sum(each.copies.size for each in self._staged) > STAGED_BYTES:
            self.write()

    def write(self) -> None:
        """Write what is on its way, after waiting for it; raises `StoreError`."""
        while self._staged:  # An error removes the rest of its statistic.
            each = self._staged.pop(0)
            with self._leaving_out(each.statistic.identity), _of(each.statistic):
                arrays = dict(zip(each.names, each.copies.arrays(), strict=True))
                for name, values in arrays.items():
                    if not np.isfinite(values).all():
                        raise PluginError(f"{name!r} of layer {each.path} is not finite")
                self._files_of(each.statistic).append(each.layer, arrays)

    def _files_of(self, statistic: Statistic) -> SampleFiles:
        identity = statistic.identity
        if identity not in self._files:
            tokens = self._tokens.get(identity)
            files = self._new_sample(None if tokens is None else len(tokens))
            self._files[identity] = statistic, files
        return self._files[identity][1]

    def drop(self, identity: str) -> None:
        """Forget a statistic, and remove its files."""
        self._staged = [each for each in self._staged if each.statistic.identity != identity]
        if identity in self._files:
            self._files.pop(identity)[1].discard()

    def discard(self) -> None:
        """Remove all files."""
        for identity in list(self._files):
            self.drop(identity)

    def finish(self) -> dict[str, Sample]:
        """Complete all files; returns the samples by identity. Raises `StoreError`."""
        self.write()
        finished = {}
        for identity, (statistic, files) in list(self._files.items()):
            with self._leaving_out(identity), _of(statistic):
                finished[identity] = files.finish()
        return finished


@contextmanager
def _of(statistic: Statistic) -> Iterator[None]:
    """Let errors name the statistic."""
    try:
        yield
    except PluginError as error:
        raise PluginError(f"statistic {statistic.name!r}: {error}") from error
