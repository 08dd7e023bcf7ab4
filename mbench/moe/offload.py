"""Handles models that are spread over several devices or keep weights on the CPU or on disk.

accelerate puts hooks on modules that bring inputs to a module's device and, where its weights are
offloaded, load them for each call and drop them afterwards. Experts are only ever called as modules
and need nothing more. Three things are used in other ways and are taken care of here: the router's
tensors, which masks replace; the first parameter, whose device counts as the model's; and the
outputs of body and head, which are used together with their inputs.
"""

from __future__ import annotations

import contextlib
import shutil
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import torch
from accelerate.hooks import AlignDevicesHook, SequentialHook, add_hook_to_module
from accelerate.utils import (
    get_max_memory,
    named_module_tensors,
    set_module_tensor_to_device,
)
from torch import nn
from transformers import PreTrainedModel

from mbench.core.errors import UnsupportedModel
from mbench.moe.adapter import MoELayer
from mbench.storage.atomic import scratch_folder

Placement = str | Mapping[str, str | int]
"""A device; a map from module paths to devices, "cpu" or "disk"; or "auto"."""

DeviceMap = str | dict[str, str | int]
"""What transformers takes."""

ROOM_FOR_WEIGHTS = 0.8
"""Share of a device's free memory that weights may fill; the rest is for what they compute."""

ALIGNMENT = 64
"""Bytes to whose multiples torch aligns memory on the CPU."""


def device_map_for(placement: Placement, needed: int) -> DeviceMap:
    """Return the devices for weights of `needed` bytes; see `mbench.moe.load.load`."""
    if not isinstance(placement, str):
        return dict(placement)
    if placement != "auto":
        return {"": placement}
    first = 0 if torch.cuda.is_available() else "cpu"
    free = get_max_memory()
    # Apple's CPU and GPU share their memory, which accelerate counts as the GPU's.
    fits = needed < ROOM_FOR_WEIGHTS * (free[first] if first in free else free["mps"])
    return {"": first} if fits else "auto"


@contextlib.contextmanager
def folder_for(
    device_map: DeviceMap,
) -> Iterator[tuple[str | None, Callable[[PreTrainedModel], object]]]:
    """Yield a folder for weights kept on disk, and a function that removes it with the model."""
    if isinstance(device_map, dict) and "disk" not in device_map.values():
        yield None, lambda model: None
        return
    folder = str(scratch_folder("offload"))
    remove = partial(shutil.rmtree, folder, ignore_errors=True)
    try:
        yield folder, lambda model: weakref.finalize(model, remove)
    except BaseException:
        remove()
        raise


def execution_device(module: nn.Module) -> torch.device:
    """Return where a module with parameters computes, wherever they are kept."""
    for hook in _hooks(module):
        if hook.offload and hook.execution_device is not None:
            return torch.device(hook.execution_device)
    return next(module.parameters()).device


def settle(model: PreTrainedModel, layers: Sequence[MoELayer]) -> None:
    """Prepare a model that has just been loaded for profiling, masking and evaluation.

    Where accelerate has placed it, routers and the first parameter's module (the input
    embeddings), small compared with the experts, stay on the devices that compute them.
    """
    for parameter in model.parameters():
        parameter.data = _aligned(parameter.data)
    hooks = [hook for module in model.modules() for hook in _hooks(module)]
    if not hooks:
        return
    for hook in hooks:
        if hook.offload:
            hook.weights_map = _AlignedWeights(hook.weights_map)
    first, _ = next(model.named_parameters())
    keep_resident(model.get_submodule(first.rpartition(".")[0]))
    for layer in layers:
        for owner in {layer.block, *layer.router.modules()}:
            keep_resident(owner)
    for module in (model.base_model, model.get_output_embeddings()):
        _return_outputs_to_inputs(module)


def keep_resident(module: nn.Module) -> None:
    """Load a module's own tensors onto the device that computes it, and leave them there."""
    for hook in _hooks(module):
        if not hook.offload:
            continue
        for name, _ in named_module_tensors(
            module, include_buffers=hook.offload_buffers, remove_non_persistent=True
        ):
            value = hook.weights_map[name]
            set_module_tensor_to_device(module, name, hook.execution_device, value=value)
        hook.offload = False


def own_tensor(module: nn.Module, name: str) -> torch.Tensor:
    """Return one of a module's own tensors with its values, wherever they are kept.

    What is offloaded is read anew in each call, onto the CPU.
    """
    tensor: torch.Tensor = getattr(module, name)
    if not tensor.is_meta:
        return tensor
    for hook in _hooks(module):
        if hook.offload:
            tensor = hook.weights_map[name]
            return tensor
    raise UnsupportedModel(f"{name} of {type(module).__name__} has no values, only a shape")


class _AlignedWeights:
    """Offloaded weights by name, as accelerate looks them up."""

    def __init__(self, weights: Mapping[str, torch.Tensor]) -> None:
        self._weights = weights

    def __getitem__(self, name: str) -> torch.Tensor:
        return _aligned(self._weights[name])

    def __contains__(self, name: str) -> bool:
        return name in self._weights


def _aligned(tensor: torch.Tensor) -> torch.Tensor:
    """Copy a CPU tensor whose memory is not aligned as torch aligns it.

    Matrix products on the CPU round differently for other alignments, so that figures would depend
    on where in a file a weight lies.
    """
    misaligned = tensor.device.type == "cpu" and tensor.data_ptr() % ALIGNMENT
    return tensor.clone() if misaligned else tensor


def _return_outputs_to_inputs(module: nn.Module) -> None:
    hooks = list(_hooks(module))
    if hooks:
        hooks[0].io_same_device = True
    else:
        add_hook_to_module(module, AlignDevicesHook(io_same_device=True))


def _hooks(module: nn.Module) -> Iterator[AlignDevicesHook]:
    hook = getattr(module, "_hf_hook", None)
    for each in hook.hooks if isinstance(hook, SequentialHook) else (hook,):
        if isinstance(each, AlignDevicesHook):
            yield each
