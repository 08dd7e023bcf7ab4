"""One artefact of each form, to be stored anywhere."""

from __future__ import annotations

import numpy as np
import pandas as pd

from mbench.core.run_record import CorpusProfile
from mbench.storage.store import Key, Store

MASK = Key.of("masks", "a mask", {"kind": "mask", "seed": 1})
ITEMS = Key.of("evaluations", "an evaluation", {"kind": "evaluation", "mask": "m"})
STATISTIC = Key.of("statistics", "a statistic", {"kind": "statistic", "code": {"moe": "1"}})
OUTCOMES = pd.DataFrame({"item": ["1", "2"], "acc": [1.0, 0.0]})
SUMS = {"count": np.arange(24.0).reshape(2, 3, 4)}
SAMPLES = {"gram": [np.full((2, 2), layer, dtype=np.float32) for layer in range(3)]}
PROFILE = CorpusProfile(7, never_selected=1, gate_mass=(0.5, 0.25, 1.0))


def fill(store: Store) -> None:
    """Write all three."""
    store.write_json(MASK, {"a": 1})
    store.write_items(ITEMS, OUTCOMES)
    store.write_statistic(STATISTIC, PROFILE, SUMS, SAMPLES)


def content(store: Store) -> dict[str, object]:
    """Everything in a filled store that can be read."""
    items = store.read_items(ITEMS)
    return {
        "mask": store.read_json(MASK),
        "items": None if items is None else items.to_dict("list"),
        "profile": store.read_profile(STATISTIC),
    }
