"""A statistic that is watched while it measures: it only may read what it is shown."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from mbench.core.interfaces import Statistic
from mbench.core.layer_data import LayerBatch, LayerWeights
from mbench.testing.failures import Broken

FIELDS = ("hidden", "top_k_index", "top_k_weight", "output_norm", "token", "ids")


class Reading(Statistic):
    """Collects what another statistic does, and compares the batch before and after, bit by bit.

    A run gives each statistic copies, so that a change harms nobody but itself: what it measures
    afterwards is not what the model computed.
    """

    name = "reading"

    def __init__(self, watched: Statistic) -> None:
        """Watch another one."""
        super().__init__()
        self._watched = watched
        self.name = watched.name  # type: ignore[misc]
        self.combine = watched.combine  # type: ignore[misc]
        self.changed: list[str] = []
        """Fields of batches that were changed."""

    def measures(self) -> bool:  # type: ignore[override]
        """As the other one."""
        return self._watched.measures()

    def inspects(self) -> bool:  # type: ignore[override]
        """As the other one."""
        return self._watched.inspects()

    def measure(self, batch: LayerBatch) -> Mapping[str, torch.Tensor]:
        """What the other one measures."""
        before = {name: getattr(batch, name).clone() for name in FIELDS}
        measured = self._watched.measure(batch)
        self.changed += [
            name for name in FIELDS if not torch.equal(before[name], getattr(batch, name))
        ]
        return measured

    def inspect(self, weights: LayerWeights) -> Mapping[str, torch.Tensor]:
        """What the other one reads."""
        return self._watched.inspect(weights)


def refuse_writing(statistic: Reading) -> None:
    """Raise `Broken` if the watched statistic has changed a batch."""
    if statistic.changed:
        what = f"statistic {statistic.name!r} changed its batch's {statistic.changed[0]!r}"
        raise Broken("pure", f"{what}, which it only may read")
