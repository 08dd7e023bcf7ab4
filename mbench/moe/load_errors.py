"""Turns what libraries raise while a model is read or loaded into one line that names the model."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
import transformers
from safetensors import SafetensorError

from mbench.core.errors import (
    MOST_CHARACTERS,
    MbenchError,
    ModelNotFound,
    UnsupportedModel,
    one_line,
)
from mbench.storage.checkpoints import HINT, local_directory
from mbench.storage.hub.answers import refusal


@contextlib.contextmanager
def naming(path_or_id: str) -> Iterator[None]:
    """Put the model's name in front of an error's text."""
    try:
        yield
    except UnsupportedModel as error:
        raise UnsupportedModel(f"model {path_or_id}: {error}") from None


@contextlib.contextmanager
def unsupported_in_one_line(path_or_id: str) -> Iterator[None]:
    """Shorten what transformers raises for a configuration that it cannot use.

    A wrong value shows up as whatever the code of the model happens to raise.
    """
    try:
        yield
    except (MbenchError, OSError):
        raise
    except Exception as error:
        text = " ".join(str(error).split())[:MOST_CHARACTERS]
        raise UnsupportedModel(
            f"model {path_or_id}: transformers {transformers.__version__} cannot build it from its "
            f"config.json ({type(error).__name__}: {text})"
        ) from error


@contextlib.contextmanager
def reachable(path_or_id: str) -> Iterator[None]:
    """Name the model whose files are missing, or why the hub does not give them."""
    try:
        yield
    except OSError as error:
        if local_directory(path_or_id) is not None:
            raise ModelNotFound(f"model {path_or_id}: {one_line(error)}") from error
        cause = error.__cause__ or error.__context__
        reason = (cause and refusal(cause)) or "the Hugging Face hub cannot be reached"
        raise ModelNotFound(f"model {path_or_id}: {reason}; {HINT}") from error


@contextlib.contextmanager
def readable(path_or_id: str) -> Iterator[None]:
    """Name the model whose weights are damaged or do not have the configuration's shapes."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (SafetensorError, RuntimeError) as error:
        raise ModelNotFound(
            f"model {path_or_id}: the weights are damaged or do not fit config.json "
            f"({one_line(error)})"
        ) from error
