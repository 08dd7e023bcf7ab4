"""No more requests: from here on everything comes from disk."""

from __future__ import annotations

import os
import sys


def offline() -> None:
    """Make the libraries refuse every request to the hub, in this process and those it starts.

    They read their settings when they are imported, some of them each its own copy.
    """
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"):
        os.environ[name] = "1"
    for module, names in (
        ("huggingface_hub.constants", ("HF_HUB_OFFLINE",)),
        ("datasets.config", ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")),
    ):
        for name in names:
            if module in sys.modules:
                setattr(sys.modules[module], name, True)
