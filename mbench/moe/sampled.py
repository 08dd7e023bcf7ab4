"""Which tokens statistics want every expert's output of: known before the pass, on the host."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from mbench.core.errors import PluginError
from mbench.core.interfaces import Statistic
from mbench.core.plugin_code import plugin_code


def tokens_sampled_by(statistic: Statistic, total_tokens: int) -> np.ndarray | None:
    """What `Statistic.sampled_tokens` gives; raises `PluginError` where it breaks its contract."""
    with plugin_code(f"statistic {statistic.name!r}, in sampled_tokens,"):
        given = statistic.sampled_tokens(total_tokens)
        tokens = None if given is None else np.asarray(given)
    if tokens is None:
        return None
    whole = tokens.ndim == 1 and np.issubdtype(tokens.dtype, np.integer)
    if (
        not whole
        or (np.diff(tokens) <= 0).any()
        or (tokens < 0).any()
        or (tokens >= total_tokens).any()
    ):
        raise PluginError(
            f"statistic {statistic.name!r}: `sampled_tokens` must be ascending indices below"
            f" {total_tokens}, each once"
        )
    return tokens.astype(np.int64)


class SampledTokens:
    """The samples of all statistics, cut as batches are; equal ones are one."""

    def __init__(self, tokens: Mapping[str, np.ndarray]) -> None:
        """`tokens`: int64 [t] by the statistics' identities, ascending."""
        distinct = {each.tobytes(): each for each in tokens.values()}
        self._samples = list(distinct.values())
        numbers = {content: number for number, content in enumerate(distinct)}
        self.number = {identity: numbers[each.tobytes()] for identity, each in tokens.items()}
        """identity -> which of the samples is the statistic's."""
        self._known: dict[tuple[int, int, int, torch.device], torch.Tensor] = {}

    def of_batch(self, start: int, stop: int) -> list[np.ndarray]:
        """Every sample's tokens among the corpus's start .. stop - 1; a batch begins."""
        self._known.clear()
        return [_between(each, start, stop) for each in self._samples]

    def rows(self, identity: str, start: int, stop: int, device: torch.device) -> torch.Tensor:
        """A statistic's tokens among start .. stop - 1, int64 [t], as distances from `start`.

        The same tensor in all layers, so that it is sent to a device once.
        """
        key = self.number[identity], start, stop, device
        if key not in self._known:
            rows = _between(self._samples[key[0]], start, stop) - start
            self._known[key] = torch.from_numpy(rows).to(device, non_blocking=True)
        return self._known[key]


def _between(tokens: np.ndarray, start: int, stop: int) -> np.ndarray:
    first, last = np.searchsorted(tokens, (start, stop))
    return tokens[first:last]
