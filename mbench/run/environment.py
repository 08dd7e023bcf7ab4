"""Settings that libraries read when they are imported, so they come first."""

from __future__ import annotations

import ctypes
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

SETTINGS = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_VERBOSITY": "error",
    "TRANSFORMERS_VERBOSITY": "error",
    "DATASETS_VERBOSITY": "error",
    # Forking after the tokenizer ran in threads would warn, and once hung.
    "TOKENIZERS_PARALLELISM": "false",
    # Threads that spin at every barrier while another program has their core made small models
    # forty times slower; benchmarks/waiting.py measures it.
    "OMP_WAIT_POLICY": "PASSIVE",
}
"""Of the environment, where the user has not set them."""
LOGGERS = ("transformers", "datasets", "lm_eval", "lm-eval", "huggingface_hub", "httpx")


@contextmanager
def settings_as_before() -> Iterator[None]:
    """After the block, the environment and the loggers are as before `set_up_libraries`."""
    new = [name for name in SETTINGS if name not in os.environ]
    levels = {name: logging.getLogger(name).level for name in LOGGERS}
    try:
        yield
    finally:
        for name in new:
            os.environ.pop(name, None)
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def set_up_libraries() -> None:
    """Silence libraries on the terminal, and keep waiting threads from using the processor.

    Their errors still arrive as exceptions. What the user has set stays.
    """
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    _keep_freed_memory()


MOST_KEPT = 1 << 29
"""Bytes of freed memory a process may hold on to."""


class _Mallinfo(ctypes.Structure):
    """What glibc's mallinfo2 returns."""

    _fields_ = [("values", ctypes.c_size_t * 10)]


FREED = 8
"""Which of the values is `fordblks`, the bytes that are free and kept."""


def return_freed_memory() -> None:
    """Give freed memory back where more than `MOST_KEPT` of it piled up between what is in use.

    Without this, the embedded model's 46 masks grew a process from 0.7 to 2.9 GB.
    """
    try:
        library = ctypes.CDLL(None)
        mallinfo, trim = library.mallinfo2, library.malloc_trim
    except (AttributeError, OSError, TypeError):
        return  # another C library, or an older one
    mallinfo.restype = _Mallinfo
    if mallinfo().values[FREED] > MOST_KEPT:
        trim(0)


def _keep_freed_memory() -> None:
    """Let glibc reuse the memory of large tensors instead of giving it back after every operation.

    Fetching it again page by page took a quarter of the time of small models on a CPU.
    """
    trim_threshold, top_pad, mmap_threshold = -1, -2, -3
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return  # another C library
    mallopt(mmap_threshold, 1 << 30)
    mallopt(trim_threshold, (1 << 31) - 1)
    mallopt(top_pad, 1 << 26)
