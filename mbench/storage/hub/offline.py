"""No more requests: from here on everything comes from disk."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

VARIABLES = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")
COPIES = (
    ("huggingface_hub.constants", ("HF_HUB_OFFLINE",)),
    ("datasets.config", ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")),
)
"""Modules that keep a copy of the setting, and what they call it."""


def offline() -> None:
    """Make the libraries refuse every request to the hub, in this process and those it starts.

    They read their settings when they are imported, some of them each its own copy.
    """
    for name in VARIABLES:
        os.environ[name] = "1"
    _set_copies(dict.fromkeys(VARIABLES, True))


@contextmanager
def online_afterwards() -> Iterator[None]:
    """After the block, requests are allowed if they were before: the process goes on."""
    before = {name: os.environ.get(name) for name in VARIABLES}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        on = ("1", "ON", "YES", "TRUE")
        _set_copies({name: (value or "").upper() in on for name, value in before.items()})


def _set_copies(settings: dict[str, bool]) -> None:
    for module, names in COPIES:
        for name in names:
            if module in sys.modules:
                setattr(sys.modules[module], name, settings[name])
