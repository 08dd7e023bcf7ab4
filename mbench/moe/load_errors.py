"""Turns what libraries raise while a model is read or loaded into one line that names the model."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
import transformers

from mbench.core.errors import (
    MOST_CHARACTERS,
    MbenchError,
    ModelNotFound,
    UnsupportedModel,
    one_line,
)


@contextlib.contextmanager
def naming(folder: str) -> Iterator[None]:
    """Put the model's name in front of an error's text."""
    try:
        yield
    except UnsupportedModel as error:
        raise UnsupportedModel(f"model {folder}: {error}") from None


@contextlib.contextmanager
def unsupported_in_one_line(folder: str) -> Iterator[None]:
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
            f"model {folder}: transformers {transformers.__version__} cannot build it from its "
            f"config.json ({type(error).__name__}: {text})"
        ) from error


@contextlib.contextmanager
def legible(folder: str) -> Iterator[None]:
    """Name the model whose files are missing or cannot be read."""
    try:
        yield
    except OSError as error:
        raise ModelNotFound(f"model {folder}: {one_line(error)}") from error


@contextlib.contextmanager
def readable(folder: str) -> Iterator[None]:
    """Name the model whose weights are damaged or do not have the configuration's shapes.

    What transformers raises for a wrong value depends on where it first meets it.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MbenchError, OSError):
        raise
    except Exception as error:
        raise ModelNotFound(
            f"model {folder}: the weights are damaged or do not fit config.json ({one_line(error)})"
        ) from error
