"""What libraries raise while a model is looked at or loaded, as one line that names the model."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
import transformers
from safetensors import SafetensorError

from mbench.core.errors import MbenchError, ModelNotFound, UnsupportedModel
from mbench.storage.checkpoints import HINT, local_directory
from mbench.storage.hub import refusal


@contextlib.contextmanager
def naming(path_or_id: str) -> Iterator[None]:
    """Begin a refusal with the model that it is about."""
    try:
        yield
    except UnsupportedModel as error:
        raise UnsupportedModel(f"model {path_or_id}: {error}") from None


@contextlib.contextmanager
def unsupported_in_one_line(path_or_id: str, trusted: bool) -> Iterator[None]:
    """What transformers says about models it has no class for takes a paragraph.

    A wrong value in a configuration surfaces as whatever the model's own code happens to raise.
    """
    try:
        yield
    except (MbenchError, OSError):
        raise
    except Exception as error:
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        hint = "" if trusted else " without the model's own code, which the suite does not trust"
        raise UnsupportedModel(
            f"model {path_or_id}: transformers {transformers.__version__} cannot build it{hint} "
            f"({first_line[:160]})"
        ) from None


@contextlib.contextmanager
def reachable(path_or_id: str) -> Iterator[None]:
    """Files that are missing, or a hub that refuses or cannot be reached."""
    try:
        yield
    except OSError as error:
        if local_directory(path_or_id) is not None:
            first_line = str(error).strip().splitlines()[0]
            raise ModelNotFound(f"model {path_or_id}: {first_line}") from None
        cause = error.__cause__ or error.__context__
        reason = (cause and refusal(cause)) or "the Hugging Face hub cannot be reached"
        raise ModelNotFound(f"model {path_or_id}: {reason}; {HINT}") from None


@contextlib.contextmanager
def readable(path_or_id: str) -> Iterator[None]:
    """Weights that are damaged or of another shape than the configuration says."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (SafetensorError, RuntimeError) as error:
        first_line = str(error).strip().splitlines()[0]
        raise ModelNotFound(
            f"model {path_or_id}: the weights are damaged or do not fit config.json ({first_line})"
        ) from None
