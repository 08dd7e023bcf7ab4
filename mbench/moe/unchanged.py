"""Whether a model is the same after foreign code has seen it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch.nn.modules import module as torch_module
from transformers import PreTrainedModel

from mbench.core.errors import PluginError

CHANGED = "the model was changed while statistics were collected"
HOOKS = ("_forward_hooks", "_forward_pre_hooks")
GLOBAL_HOOKS = ("_global_forward_hooks", "_global_forward_pre_hooks")


class ModelChanged(PluginError):
    """A statistic changed the model, so that nothing measured since then counts."""


@contextlib.contextmanager
def unchanged(model: PreTrainedModel) -> Iterator[None]:
    """Raise `ModelChanged` if weights, buffers or hooks are others after the block.

    Weights that lie on disk are not looked at: they are read anew for every use.
    """
    everywhere = {name: dict(getattr(torch_module, name)) for name in GLOBAL_HOOKS}
    before = _fingerprint(model)
    try:
        yield
    except BaseException as error:
        # Likelier the cause than a problem of its own: a model of NaN gives NaN.
        if _put_back(everywhere) or _fingerprint(model) != before:
            raise ModelChanged(CHANGED) from error
        raise
    if _put_back(everywhere) or _fingerprint(model) != before:
        raise ModelChanged(CHANGED)


def _put_back(everywhere: Mapping[str, dict[int, Any]]) -> bool:
    """Remove hooks on all modules that were not there before; whether there were any."""
    changed = False
    for name, kept in everywhere.items():
        hooks = getattr(torch_module, name)
        if dict(hooks) != kept:
            changed = True
            hooks.clear()
            hooks.update(kept)
    return changed


def _fingerprint(model: PreTrainedModel) -> tuple[tuple[int, ...], int]:
    """Sums of all tensors' bits, and how many hooks there are."""
    sums = []
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.is_meta or not tensor.numel():
            continue
        flat = tensor.detach().reshape(-1)
        bits = flat.view(_INTEGERS[flat.element_size()]) if flat.dtype != torch.bool else flat
        # Two sums, so that values that changed places show as well.
        sums += [bits.sum(dtype=torch.int64), bits[::2].sum(dtype=torch.int64)]
    hooks = sum(len(getattr(part, name)) for part in model.modules() for name in HOOKS)
    return tuple(int(value) for value in sums), hooks


_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
