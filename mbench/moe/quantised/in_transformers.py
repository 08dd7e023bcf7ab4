"""Lets transformers load weights through the reader of stored forms, in place of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import modeling_utils

from mbench.core.errors import MbenchError, UnsupportedModel
from mbench.core.replaced import environment_variable, replaced
from mbench.moe.quantised.form import Form
from mbench.moe.quantised.reader import StoredWeights, refuse_stored, weight_files


@contextlib.contextmanager
def reading(weights: StoredWeights) -> Iterator[None]:
    """Within, transformers reads a checkpoint as if all its weights were plain.

    It also holds one copy of the weights instead of two: by itself it maps the files into memory,
    merges the experts into new tensors, and reads ahead in threads. Reading each tensor when it is
    needed takes half the memory, and less time.
    """
    offload, unpickle = _own("accelerate_disk_offload"), _own("load_state_dict")
    _own("safe_open")

    def open_file(file: str, **_: Any) -> Any:
        return weights.open_file(file)

    def unpickled(*arguments: Any, **options: Any) -> dict[str, torch.Tensor]:
        tensors: dict[str, torch.Tensor] = unpickle(*arguments, **options)
        for name, tensor in tensors.items():
            refuse_stored(name, str(tensor.dtype).removeprefix("torch."), tensor.shape)
        return tensors

    def offloaded(model: Any, to: Any, files: Any, *others: Any) -> Any:
        # It would take weights that it need not convert from the checkpoint's files for every use,
        # by their names and without their scales. Without files it writes numbers.
        return offload(model, to, None if weights.form else files, *others)

    with (
        environment_variable("HF_DEACTIVATE_ASYNC_LOAD", "1"),
        replaced(modeling_utils, "safe_open", open_file),
        replaced(modeling_utils, "load_state_dict", unpickled),
        replaced(modeling_utils, "accelerate_disk_offload", offloaded),
    ):
        yield


def stored_files(folder: str, form: Form | None, variant: str | None = None) -> list[Path]:
    """The safetensors files of a checkpoint; `variant` stands in their names.

    Raises `UnsupportedModel` where weights in a form lie in other files, which are not read.
    """
    files = weight_files(Path(folder), variant)
    if form and not files:
        raise UnsupportedModel(
            f"weights in {form.words} are read from safetensors files only, and it has none"
        )
    return files


def _own(name: str) -> Callable[..., Any]:
    """A function of transformers that is put aside."""
    if not hasattr(modeling_utils, name):
        raise MbenchError(
            f"transformers {transformers.__version__} reads weights in a way that mbench does not "
            "know; install the version in constraints.txt"
        )
    function: Callable[..., Any] = getattr(modeling_utils, name)
    return function
