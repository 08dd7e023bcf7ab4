"""What the host learns from devices, which it waits for as seldom as possible."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from mbench.core.errors import MbenchError


class Copies:
    """Copies of tensors that are under way to the host's memory."""

    def __init__(self, tensors: Sequence[torch.Tensor]) -> None:
        """Begin to copy; the tensors may be changed or dropped at once."""
        self._copies = [_begun(tensor.detach()) for tensor in tensors]
        self._devices = {tensor.device for tensor in tensors if tensor.device.type != "cpu"}
        self.size = sum(each.nbytes for each in self._copies)
        """Bytes."""

    @property
    def there(self) -> bool:
        """Whether no device has to be waited for."""
        return not self._devices

    def arrays(self) -> list[np.ndarray]:
        """Wait for the devices, once each; returns the values."""
        for device in self._devices:
            torch.accelerator.synchronize(device)
        self._devices.clear()
        return [each.numpy() for each in self._copies]


def _begun(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.device.type == "cpu":
        return tensor
    pinned = tensor.device.type == "cuda"
    return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=pinned).copy_(
        tensor, non_blocking=True
    )


class Doubts:
    """Errors that are none unless a flag on a device turns out to be true."""

    def __init__(self) -> None:
        self._flags: dict[tuple[str, str], tuple[MbenchError, torch.Tensor]] = {}

    def add(self, identity: str, error: MbenchError, wrong: torch.Tensor) -> None:
        """Note that a statistic fails with `error` if `wrong`, bool [], is true."""
        key = identity, str(error)
        if key in self._flags:
            error, before = self._flags[key]
            wrong = before | wrong
        self._flags[key] = error, wrong

    def settle(self, identity: str | None = None) -> dict[str, MbenchError]:
        """The first error of each statistic, or of one; their doubts are forgotten."""
        keys = [key for key in self._flags if identity in (None, key[0])]
        noted = [self._flags.pop(key) for key in keys]
        found: dict[str, MbenchError] = {}
        flags = Copies([flag for _, flag in noted]).arrays()
        for (name, _), (error, _), wrong in zip(keys, noted, flags, strict=True):
            if wrong:
                found.setdefault(name, error)
        return found
