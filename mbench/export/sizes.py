"""How large a checkpoint is before and after: parameters, and bytes as stored."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
from transformers import PreTrainedModel

from mbench.core.interfaces import ExpertMask
from mbench.core.stand_ins import Constants, keeps_router
from mbench.export.written import Size
from mbench.moe.adapter import MoELayer
from mbench.moe.prune import expert_dims
from mbench.storage.safetensor_files import NewTensor, StoredTensor


def sizes(
    model: PreTrainedModel,
    layers: Sequence[MoELayer],
    mask: ExpertMask,
    full: Sequence[StoredTensor],
    pruned: Sequence[NewTensor],
    in_fewer_bits: bool,
) -> tuple[Size, Size]:
    """The full checkpoint and the pruned one, with the constants that stand in for experts.

    Where weights are stored in fewer bits, parameters are those of a checkpoint of plain numbers.
    """
    parameters = [sum(prod(t.shape) for t in full), sum(t.parameters for t in pruned)]
    if in_fewer_bits:
        parameters = [_plain_parameters(model, layers), _plain_parameters(model, layers, mask)]
    constants = np.zeros(0, dtype=np.float32)
    if isinstance(mask.stand_in, Constants):
        constants = mask.stand_in.outputs[~mask.keep]
    return (
        Size(parameters[0], sum(t.size for t in full)),
        Size(parameters[1] + constants.size, sum(t.size for t in pruned) + constants.nbytes),
    )


def _plain_parameters(
    model: PreTrainedModel, layers: Sequence[MoELayer], mask: ExpertMask | None = None
) -> int:
    """What a checkpoint of plain numbers would hold, pruned by `mask`, tied tensors once."""
    unique = {id(tensor): tensor.numel() for tensor in model.parameters()}
    stored = model.state_dict()
    unique |= {id(b): b.numel() for name, b in model.named_buffers() if name in stored}
    total = sum(unique.values())
    if mask is None:
        return total
    dims = expert_dims(model, layers, router=not keeps_router(mask.stand_in))
    dropped = np.count_nonzero(~mask.keep, axis=1).tolist()
    count: int = mask.keep.shape[1]
    gone: int = sum(
        stored[name].numel() // count * dropped[layer] for name, (layer, _) in dims.items()
    )
    return total - gone
